//! What every command needs: where banger's files are, how to write, which signals came.

use crate::client::{Client, Reply};
use crate::commands::Global;
use crate::error::{CommandError, Outcome};
use crate::output::Output;
use crate::signal::Signals;
use banger_core::Failure;
use banger_core::protocol::{Call, Empty};
use banger_host::dirs::Dirs;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::sync::Arc;

/// One run of banger.
#[derive(Debug)]
pub struct Context {
    /// How results are written.
    pub output: Output,
    signals: OnceCell<Arc<Signals>>,
}

impl Context {
    /// From the options that every command has.
    pub fn new(global: &Global) -> Self {
        Self {
            output: Output::new(global.json, global.quiet),
            signals: OnceCell::new(),
        }
    }

    /// Where banger's files are.
    ///
    /// # Errors
    /// Where the environment does not tell.
    pub fn dirs(&self) -> Result<Dirs, Failure> {
        Dirs::from_environment()
    }

    /// SIGINT and SIGTERM, caught from the first call on.
    ///
    /// # Errors
    /// Where they can't be caught.
    pub fn signals(&self) -> Result<Arc<Signals>, Failure> {
        if let Some(signals) = self.signals.get() {
            return Ok(signals.clone());
        }
        let signals = Arc::new(Signals::catch()?);
        Ok(self.signals.get_or_init(|| signals).clone())
    }

    /// A connection to the daemon, which is started where none runs.
    ///
    /// # Errors
    /// Where it can't be reached or started.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::connect(self.dirs()?, self.signals()?, &self.output)
    }

    /// Asks the daemon one thing.
    ///
    /// # Errors
    /// What the daemon answers, or why it does not.
    pub fn call<R: DeserializeOwned>(&self, call: Call) -> Result<Reply<R>, Failure> {
        self.client()?.call(call)
    }

    /// Asks the daemon one thing and writes its answer: as JSON, or as `render` makes it.
    ///
    /// # Errors
    /// As [`Context::call`], or where the answer can't be written.
    pub fn answer<R: DeserializeOwned>(
        &self,
        call: Call,
        render: impl FnOnce(&R) -> String,
    ) -> Outcome {
        let reply = self.call(call)?;
        self.write(&reply, render)?;
        Ok(0)
    }

    /// Writes a reply: as JSON, or as `render` makes it.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write<R>(
        &self,
        reply: &Reply<R>,
        render: impl FnOnce(&R) -> String,
    ) -> Result<(), CommandError> {
        if self.output.json {
            self.output.print_json(&reply.json)
        } else {
            self.output.print(&render(&reply.value))
        }
    }
}

/// The parameters of calls that have none.
pub const NONE: Empty = Empty {};
