//! The database: what the daemon knows of machines, working copies and sessions.
//!
//! Records are JSON beside the columns that are searched by. The guest owns the truth of a
//! session and the driver that of a machine; this is their cache, and the only home of names,
//! pins and recorded heads. No secret is ever stored here.

use banger_core::protocol::machine::Driver;
use banger_core::protocol::session::Session;
use banger_core::protocol::workspace::Prepared;
use banger_core::{Failure, ImageName, Kind, SessionId, VmId, VmName};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The version of the schema below.
const SCHEMA_VERSION: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL
    ) STRICT;
    CREATE TABLE workspaces (
        vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
        guest_path BLOB NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (vm_id, guest_path)
    ) STRICT;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        record TEXT NOT NULL,
        UNIQUE (vm_id, name)
    ) STRICT;
";

/// What version 2 adds.
const SCHEMA_2: &str = "
    CREATE TABLE deleted_sessions (
        id TEXT PRIMARY KEY,
        vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE
    ) STRICT;
";

/// What is kept of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: VmName,
    /// How it came to be.
    pub driver: Driver,
    /// Whether it was made whole. One that was not is removed when the daemon starts.
    pub complete: bool,
    /// The image it was made from.
    pub image: Option<ImageName>,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the work disk in MiB.
    pub work_disk_mib: u64,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// The pinned host key, as a line of a public key file.
    pub host_key: String,
    /// Of an adopted host: where it is.
    pub adopted: Option<AdoptedRecord>,
}

/// Where an adopted host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedRecord {
    /// Host name or address.
    pub host: String,
    /// Port of its sshd.
    pub port: u16,
    /// Who to be there.
    pub user: String,
    /// Path of the private key.
    pub identity: String,
}

/// Why the database could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// A record is not of its form.
    #[error("a record in the database can't be read")]
    Record(#[from] serde_json::Error),
    /// A newer banger wrote it.
    #[error("the database has version {found}, this banger knows up to {SCHEMA_VERSION}")]
    Newer {
        /// Its version.
        found: i64,
    },
    /// The name is taken.
    #[error("there is a {what} with the name `{name}` already")]
    Taken {
        /// VM or session.
        what: &'static str,
        /// The name.
        name: String,
    },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken { .. } => Self::from_error(Kind::Conflict, &error)
                .hint("choose another name, or delete that one first"),
            StoreError::Newer { .. } => Self::from_error(Kind::Host, &error)
                .hint("use the newer banger that wrote it, or another BANGER_HOME"),
            StoreError::Sqlite(_) => {
                Self::from_error(Kind::Host, &error).hint("is the disk full? `banger doctor` tells")
            }
            StoreError::Record(_) => Self::from_error(Kind::Internal, &error),
        }
    }
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// Where it can't be opened or a newer banger wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Private from its first byte on; SQLite gives its other files the same mode. Where this
        // fails, opening it says why.
        let _ = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A machine's record must survive a power loss before its disks are made.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match found {
            SCHEMA_VERSION => {}
            0 | 1 => {
                let first = if found == 0 { SCHEMA } else { "" };
                connection.execute_batch(&format!(
                    "BEGIN; {first} {SCHEMA_2} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                ))?;
            }
            found => return Err(StoreError::Newer { found }),
        }
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held can't have left a transaction open: none is used
        // across statements.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Folds the write-ahead log into the database's own file, so that this file alone is whole.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(self
            .connection()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// Adds a machine.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where its name is.
    pub fn insert_vm(&self, vm: &VmRecord) -> Result<(), StoreError> {
        self.connection()
            .execute(
                "INSERT INTO vms (id, name, record) VALUES (?1, ?2, ?3)",
                params![vm.id.as_str(), vm.name.as_str(), serde_json::to_string(vm)?],
            )
            .map(drop)
            .map_err(|error| taken(error, "VM", vm.name.as_str()))
    }

    /// Replaces a machine's record.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn update_vm(&self, vm: &VmRecord) -> Result<(), StoreError> {
        self.connection().execute(
            "UPDATE vms SET record = ?2 WHERE id = ?1",
            params![vm.id.as_str(), serde_json::to_string(vm)?],
        )?;
        Ok(())
    }

    /// Forgets a machine, its working copies and its sessions.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_vm(&self, id: &VmId) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM vms WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// All machines by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn vms(&self) -> Result<Vec<VmRecord>, StoreError> {
        self.records("SELECT record FROM vms ORDER BY name", [])
    }

    /// The machine with this name or id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn vm(&self, name_or_id: &str) -> Result<Option<VmRecord>, StoreError> {
        self.record(
            "SELECT record FROM vms WHERE name = ?1 OR id = ?1 ORDER BY name = ?1 DESC LIMIT 1",
            [name_or_id],
        )
    }

    /// Adds or replaces a working copy.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_workspace(&self, vm: &VmId, workspace: &Prepared) -> Result<(), StoreError> {
        self.connection().execute(
            "INSERT OR REPLACE INTO workspaces (vm_id, guest_path, record) VALUES (?1, ?2, ?3)",
            params![
                vm.as_str(),
                workspace.guest_path.as_bytes(),
                serde_json::to_string(workspace)?
            ],
        )?;
        Ok(())
    }

    /// Records that all work in a working copy was exported, as this tree and this HEAD. Where
    /// something else was put in there meanwhile, nothing is recorded.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn mark_exported(
        &self,
        vm: &VmId,
        of: &Prepared,
        tree: &str,
        head: Option<&str>,
    ) -> Result<(), StoreError> {
        self.change_workspaces(vm, |prepared| {
            if prepared.guest_path == of.guest_path && prepared.prepared_at_ms == of.prepared_at_ms
            {
                prepared.exported_tree = Some(tree.to_owned());
                prepared.exported_head = head.map(str::to_owned);
            }
        })
    }

    /// Changes the records of a machine's working copies, all or none.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn change_workspaces(
        &self,
        vm: &VmId,
        mut change: impl FnMut(&mut Prepared),
    ) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut records: Vec<Prepared> = Vec::new();
        {
            let mut statement =
                transaction.prepare_cached("SELECT record FROM workspaces WHERE vm_id = ?1")?;
            let mut rows = statement.query([vm.as_str()])?;
            while let Some(row) = rows.next()? {
                records.push(serde_json::from_str(
                    row.get_ref(0)?.as_str().unwrap_or(""),
                )?);
            }
        }
        for mut record in records {
            change(&mut record);
            transaction.execute(
                "UPDATE workspaces SET record = ?3 WHERE vm_id = ?1 AND guest_path = ?2",
                params![
                    vm.as_str(),
                    record.guest_path.as_bytes(),
                    serde_json::to_string(&record)?
                ],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// A machine's working copies by path.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn workspaces(&self, vm: &VmId) -> Result<Vec<Prepared>, StoreError> {
        self.records(
            "SELECT record FROM workspaces WHERE vm_id = ?1 ORDER BY guest_path",
            [vm.as_str()],
        )
    }

    /// Adds a session.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where its name is.
    pub fn insert_session(&self, session: &Session) -> Result<(), StoreError> {
        self.connection()
            .execute(
                "INSERT INTO sessions (id, vm_id, name, created_at_ms, record) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    session.id.as_str(),
                    session.vm_id.as_str(),
                    session.name.as_str(),
                    i64::try_from(session.created_at_ms).unwrap_or(i64::MAX),
                    serde_json::to_string(session)?
                ],
            )
            .map(drop)
            .map_err(|error| taken(error, "session", session.name.as_str()))
    }

    /// Replaces a session's record.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn update_session(&self, session: &Session) -> Result<(), StoreError> {
        self.connection().execute(
            "UPDATE sessions SET record = ?2 WHERE id = ?1",
            params![session.id.as_str(), serde_json::to_string(session)?],
        )?;
        Ok(())
    }

    /// Replaces the records of sessions, all or none. Not flushed to the disk: what a guest said is
    /// asked for again after a power loss.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn update_observed(&self, sessions: &[Session]) -> Result<(), StoreError> {
        let mut connection = self.connection();
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let updated = (|| {
            let transaction = connection.transaction()?;
            for session in sessions {
                transaction
                    .prepare_cached("UPDATE sessions SET record = ?2 WHERE id = ?1")?
                    .execute(params![
                        session.id.as_str(),
                        serde_json::to_string(session)?
                    ])?;
            }
            Ok(transaction.commit()?)
        })();
        connection.pragma_update(None, "synchronous", "FULL")?;
        updated
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_session(&self, id: &SessionId) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM sessions WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Forgets a session whose directory could not be removed with it: the guest does not run.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_session_here(&self, session: &Session) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let id = session.id.as_str();
        transaction.execute(
            "INSERT OR IGNORE INTO deleted_sessions (id, vm_id) VALUES (?1, ?2)",
            params![id, session.vm_id.as_str()],
        )?;
        transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
        Ok(transaction.commit()?)
    }

    /// Whether a session was deleted while its guest did not run.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn was_deleted_here(&self, id: &SessionId) -> Result<bool, StoreError> {
        Ok(self.connection().query_row(
            "SELECT EXISTS (SELECT 1 FROM deleted_sessions WHERE id = ?1)",
            [id.as_str()],
            |row| row.get(0),
        )?)
    }

    /// Notes that such a session is gone from its guest as well.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_session_there(&self, id: &SessionId) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM deleted_sessions WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// A machine's sessions, oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn sessions(&self, vm: &VmId) -> Result<Vec<Session>, StoreError> {
        self.records(
            "SELECT record FROM sessions WHERE vm_id = ?1 ORDER BY created_at_ms, id",
            [vm.as_str()],
        )
    }

    /// The session with this id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn session_by_id(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.record("SELECT record FROM sessions WHERE id = ?1", [id.as_str()])
    }

    /// A machine's session with this name or id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn session(&self, vm: &VmId, name_or_id: &str) -> Result<Option<Session>, StoreError> {
        self.record(
            "SELECT record FROM sessions WHERE vm_id = ?1 AND (name = ?2 OR id = ?2)
             ORDER BY name = ?2 DESC LIMIT 1",
            params![vm.as_str(), name_or_id],
        )
    }

    fn records<T: serde::de::DeserializeOwned>(
        &self,
        query: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(query)?;
        let mut rows = statement.query(params)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(serde_json::from_str(
                row.get_ref(0)?.as_str().unwrap_or(""),
            )?);
        }
        Ok(records)
    }

    fn record<T: serde::de::DeserializeOwned>(
        &self,
        query: &str,
        params: impl rusqlite::Params,
    ) -> Result<Option<T>, StoreError> {
        let connection = self.connection();
        let text: Option<String> = connection
            .prepare_cached(query)?
            .query_row(params, |row| row.get(0))
            .optional()?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }
}

fn taken(error: rusqlite::Error, what: &'static str, name: &str) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Taken {
            what,
            name: name.to_owned(),
        },
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(id: u8, name: &str) -> VmRecord {
        VmRecord {
            id: VmId::from_random([id; 6]),
            name: name.parse().expect("a name"),
            driver: Driver::Qemu,
            complete: true,
            image: Some("base".parse().expect("a name")),
            cpus: 1,
            memory_mib: 512,
            work_disk_mib: 1024,
            created_at_ms: 1,
            host_key: "ssh-ed25519 AAAA".into(),
            adopted: None,
        }
    }

    #[test]
    fn a_name_is_taken_once_and_found_after_reopening() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("banger.db");
        let store = Store::open(&path).expect("opens");
        store.insert_vm(&vm(1, "one")).expect("inserted");
        assert!(matches!(
            store.insert_vm(&vm(2, "one")),
            Err(StoreError::Taken { what: "VM", .. })
        ));
        drop(store);
        let store = Store::open(&path).expect("opens again");
        assert_eq!(store.vm("one").expect("reads"), Some(vm(1, "one")));
        assert_eq!(store.vm("010101010101").expect("reads"), Some(vm(1, "one")));
        assert_eq!(store.vm("two").expect("reads"), None);
        store.delete_vm(&vm(1, "one").id).expect("deleted");
        assert_eq!(store.vms().expect("reads"), []);
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("banger.db");
        Connection::open(&path)
            .expect("opens")
            .pragma_update(None, "user_version", 99)
            .expect("set");
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Newer { found: 99 })
        ));
    }
}
