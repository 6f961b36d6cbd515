//! Working copies: into the guest, and the work back out.
//!
//! The host reads the user's repository and carries bytes; what happens in the guest is the
//! workspace plugin's.

mod export;
mod meter;
mod prepare;

use crate::plugin::Registry;
use crate::repository::Repository;
use crate::store::Store;
use crate::stream::Streams;
use crate::vm::{Guest, Machines};
use banger_core::protocol::workspace::DEFAULT_GUEST_PATH;
use banger_core::workspace::Source;
use banger_core::{ByteString, Failure, GuestPath, Kind};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// The kind of working copy that is made.
const KIND: &str = "git";

/// Brings repositories in and work out.
pub struct Workspaces {
    machines: Arc<Machines>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    streams: Streams,
}

impl Workspaces {
    /// Working copies in these machines.
    pub fn new(
        machines: Arc<Machines>,
        store: Arc<Store>,
        registry: Arc<Registry>,
        streams: Streams,
    ) -> Self {
        Self {
            machines,
            store,
            registry,
            streams,
        }
    }

    /// The user's repository, before anything is made for it: what can't work is said early.
    ///
    /// # Errors
    /// Where no plugin makes such working copies, or the path is no repository with a commit.
    pub async fn examine(&self, path: &ByteString) -> Result<(Repository, Source), Failure> {
        self.registry.workspace(KIND)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.0.clone()));
        let repository = Repository::find(&path).await?;
        let source = repository.source().await?;
        Ok((repository, source))
    }
}

/// Where in the guest: what was asked for, else `repo` in the home.
fn guest_path(guest: &Guest, asked: Option<&GuestPath>) -> Result<GuestPath, Failure> {
    match asked {
        Some(path) => Ok(path.clone()),
        None => {
            let name = DEFAULT_GUEST_PATH.rsplit('/').next().unwrap_or_default();
            guest
                .home
                .join(name)
                .map_err(|error| Failure::from_error(Kind::Internal, &error))
        }
    }
}
