//! What each request does.

use super::Daemon;
use crate::doctor;
use crate::image::{BuildProgress, ImageManifest};
use crate::plugin::{Origin, PluginInfo};
use crate::store::VmRecord;
use crate::task::{StageClock, Task};
use crate::vm::STOP_GRACE;
use banger_core::protocol::image::{Image, ImageBuild, ImageList};
use banger_core::protocol::machine::{Vm, VmDeleted, VmExec, VmList, VmRun, VmRunReply, VmStop};
use banger_core::protocol::plugin::{Plugin, PluginList, PluginOrigin};
use banger_core::protocol::session::SessionList;
use banger_core::protocol::{
    Call, DaemonInfo, DoctorCheck, DoctorReply, DoctorStatus, Empty, PROTOCOL_VERSION, Stream,
};
use banger_core::{Failure, Kind, escape};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

fn value(reply: impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(reply).map_err(|error| Failure::from_error(Kind::Internal, &error))
}

impl Daemon {
    /// Does what a request asks, and answers as [`Call`] says.
    ///
    /// # Errors
    /// The failure that its client sees.
    pub async fn handle(&self, call: Call, task: &Task) -> Result<Value, Failure> {
        match call {
            Call::Hello(_) => Err(Failure::new(Kind::Internal, "a greeting came twice")),
            Call::DaemonInfo(Empty {}) => value(self.info()),
            Call::DaemonStop(Empty {}) => {
                self.stop.cancel();
                value(Empty {})
            }
            Call::Doctor(Empty {}) => value(self.doctor().await),

            Call::VmRun(request) => value(self.vm_run(request, task).await?),
            Call::VmCreate(request) => {
                let record = self.machines.create(&request, task).await?;
                value(
                    self.machines
                        .describe(&self.machines.complete(&record)?)
                        .await?,
                )
            }
            Call::VmList(Empty {}) => {
                let mut vms = Vec::new();
                for record in self.machines.records()? {
                    vms.push(self.machines.describe(&record).await?);
                }
                value(VmList { vms })
            }
            Call::VmGet(request) => value(self.describe(&request.vm).await?),
            Call::VmStart(request) => {
                let record = self.machines.find(&request.vm)?;
                self.workspaces.forget_note(&record)?;
                self.machines.start(&record, task).await?;
                value(self.machines.describe(&record).await?)
            }
            Call::VmStop(request) => value(self.vm_stop(request, task).await?),
            Call::VmDelete(request) => {
                let record = self.machines.find(&request.vm)?;
                let saved = if request.discard {
                    Vec::new()
                } else {
                    self.workspaces.save_all(&record, task).await?
                };
                task.check()?;
                task.progress("delete", format!("deleting {}", record.name));
                let sessions = self.sessions.known(&record)?;
                self.machines.delete(&record).await?;
                self.sessions.forget_all(&sessions);
                value(VmDeleted { saved })
            }
            Call::VmAdopt(request) => {
                let record = self.machines.adopt(&request, task).await?;
                value(self.machines.describe(&record).await?)
            }
            Call::VmExec(request) => value(self.vm_exec(request).await?),
            Call::VmSsh(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.machines.ssh(&record).await?)
            }
            Call::VmLogs(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.machines.logs(&record)?)
            }

            Call::WorkspacePrepare(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.workspaces.prepare(&record, &request, task).await?)
            }
            Call::WorkspaceExport(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.workspaces.export(&record, &request, task).await?)
            }
            Call::WorkspaceDiff(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.workspaces.diff(&record, &request, task).await?)
            }
            Call::WorkspaceStatusCall(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.workspaces.status(&record, &request, task).await?)
            }
            Call::WorkspaceApply(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.workspaces.apply(&record, &request, task).await?)
            }

            Call::SessionStart(request) => {
                let record = self.machines.find(&request.vm)?;
                let started = self.sessions.start(&record, &request, task).await;
                value(self.explained(&record, started).await?)
            }
            Call::SessionListCall(request) => value(SessionList {
                sessions: self.sessions.list(&request).await?,
            }),
            Call::SessionGet(request) => {
                let record = self.machines.find(&request.vm)?;
                value(self.sessions.get_known(&record, &request.session).await?)
            }
            Call::SessionLogs(request) => {
                let record = self.machines.find(&request.vm)?;
                let opened = self.sessions.logs(&record, &request).await;
                value(self.explained(&record, opened).await?)
            }
            Call::SessionAttach(request) => {
                let record = self.machines.find(&request.vm)?;
                let opened = self.sessions.attach(&record, &request).await;
                value(self.explained(&record, opened).await?)
            }
            Call::SessionSend(request) => {
                let record = self.machines.find(&request.vm)?;
                let sent = self.sessions.send(&record, &request).await;
                match self.explained(&record, sent).await? {
                    Ok(sent) => value(sent),
                    Err(stream) => value(stream),
                }
            }
            Call::SessionSignal(request) => {
                let record = self.machines.find(&request.vm)?;
                let done = self
                    .sessions
                    .signal(&record, &request.session, &request.signal)
                    .await;
                value(self.explained(&record, done).await?)
            }
            Call::SessionStop(request) => {
                let record = self.machines.find(&request.vm)?;
                task.progress("stop", "asking the session to end");
                let done = self.sessions.stop(&record, &request).await;
                value(self.explained(&record, done).await?)
            }
            Call::SessionKill(request) => {
                let record = self.machines.find(&request.vm)?;
                let done = self.sessions.kill(&record, &request.session).await;
                value(self.explained(&record, done).await?)
            }
            Call::SessionDelete(request) => {
                let record = self.machines.find(&request.vm)?;
                let done = self.sessions.delete(&record, &request.session).await;
                self.explained(&record, done).await?;
                value(Empty {})
            }
            Call::SessionWait(request) => {
                let record = self.machines.find(&request.vm)?;
                let limit = request.timeout_ms.map(Duration::from_millis);
                let ended = self
                    .sessions
                    .wait(&record, &request.session, limit, task)
                    .await;
                value(self.explained(&record, ended).await?)
            }

            Call::SessionResize(request) => {
                let record = self.machines.find(&request.vm)?;
                let done = self.sessions.resize(&record, &request).await;
                self.explained(&record, done).await?;
                value(Empty {})
            }

            Call::Subscribe(request) => value(self.sessions.subscribe(&request, task).await?),

            Call::ImageBuild(request) => value(self.image_build(request, task).await?),
            Call::ImageListCall(Empty {}) => {
                let mut images = Vec::new();
                for manifest in self.machines.images().list()? {
                    images.push(self.image(&manifest)?);
                }
                value(ImageList { images })
            }
            Call::ImageGet(request) => {
                let found = self.machines.images().get(request.name.as_str())?;
                let image = found.ok_or_else(|| {
                    Failure::new(
                        Kind::NotFound,
                        format!("there is no image `{}`", request.name),
                    )
                    .hint("`banger image list` shows those that there are")
                })?;
                value(self.image(image.manifest())?)
            }
            Call::ImageDelete(request) => {
                self.machines.images().delete(request.name.as_str())?;
                value(Empty {})
            }

            Call::PluginListCall(Empty {}) => value(PluginList {
                plugins: self.registry.list().iter().map(plugin).collect(),
            }),
            Call::PluginGet(request) => {
                let found = self
                    .registry
                    .list()
                    .iter()
                    .find(|plugin| plugin.name == request.name);
                value(found.map(plugin).ok_or_else(|| {
                    let name = escape::text(request.name.as_bytes());
                    Failure::new(Kind::NotFound, format!("there is no plugin `{name}`"))
                        .hint("`banger plugin list` shows those that there are")
                })?)
            }
        }
    }

    async fn describe(&self, vm: &str) -> Result<Vm, Failure> {
        self.machines.describe(&self.machines.find(vm)?).await
    }

    /// The same result, where an unreachable guest turns out to be a stopped one.
    async fn explained<T>(&self, vm: &VmRecord, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.machines.explain(vm, failure).await),
        }
    }

    fn info(&self) -> DaemonInfo {
        DaemonInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL_VERSION,
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            socket: self.dirs.socket().to_string_lossy().into_owned(),
            log: self.dirs.daemon_log().to_string_lossy().into_owned(),
            memory_kib: resident_kib(),
        }
    }

    async fn doctor(&self) -> DoctorReply {
        let places = doctor::Places {
            images: &self.dirs.images(),
            accelerator_cache: &self.machines.accelerator_cache(),
        };
        let mut checks: Vec<DoctorCheck> = doctor::examine(&places)
            .await
            .into_iter()
            .map(|check| DoctorCheck {
                id: check.id,
                status: match check.status {
                    doctor::CheckStatus::Ok => DoctorStatus::Ok,
                    doctor::CheckStatus::Warning => DoctorStatus::Warning,
                    doctor::CheckStatus::Error => DoctorStatus::Error,
                },
                summary: check.summary,
                hint: check.hint.unwrap_or_default(),
            })
            .collect();
        let broken: Vec<&str> = self
            .registry
            .list()
            .iter()
            .filter(|plugin| plugin.error.is_some())
            .map(|plugin| plugin.name.as_str())
            .collect();
        let cache_problem = self.registry.cache_problem();
        checks.push(DoctorCheck {
            id: "plugins".into(),
            status: if broken.is_empty() && cache_problem.is_none() {
                DoctorStatus::Ok
            } else {
                DoctorStatus::Warning
            },
            summary: match (broken.is_empty(), cache_problem) {
                (false, _) => format!("can't be used: {}", broken.join(", ")),
                (true, Some(problem)) => format!("compiled at each start: {problem}"),
                (true, None) => format!("{} loaded", self.registry.list().len()),
            },
            hint: match broken.first() {
                Some(name) => format!("`banger plugin show {name}` tells why"),
                None => String::new(),
            },
        });
        let info = self.info();
        checks.push(DoctorCheck {
            id: "daemon".into(),
            status: DoctorStatus::Ok,
            summary: format!(
                "version {}, process {}, {} MiB, log {}",
                info.version,
                info.pid,
                info.memory_kib / 1024,
                info.log
            ),
            hint: String::new(),
        });
        DoctorReply { checks }
    }

    /// Create, start, prepare; whatever fails, nothing is left.
    async fn vm_run(&self, request: VmRun, task: &Task) -> Result<VmRunReply, Failure> {
        let mut clock = StageClock::default();
        // A path that is no repository must not cost a machine.
        self.workspaces.examine(&request.prepare).await?;
        let image = match &request.create.image {
            Some(image) => image.clone(),
            None => crate::vm::default_image(),
        };
        self.machines.ensure_image(&image, task).await?;
        clock.lap("image");
        let record = self.machines.create(&request.create, task).await?;
        clock.lap("create");
        let done = async {
            self.machines.start(&record, task).await?;
            clock.lap("boot");
            let workspace = self
                .workspaces
                .prepare(&record, &request.prepare, task)
                .await?;
            clock.lap("workspace");
            task.check()?;
            let record = self.machines.complete(&record)?;
            Ok(VmRunReply {
                vm: self.machines.describe(&record).await?,
                workspace,
                stages: Vec::new(),
            })
        };
        let done: Result<VmRunReply, Failure> = done.await;
        match done {
            Ok(reply) => Ok(VmRunReply {
                stages: clock.into_stages(),
                ..reply
            }),
            Err(failure) => {
                task.progress("cleanup", format!("removing {}", record.name));
                if let Err(error) = self.machines.delete(&record).await {
                    tracing::error!(vm = %record.name, %error, "a half-made machine can't be removed");
                }
                Err(failure)
            }
        }
    }

    async fn vm_stop(&self, request: VmStop, task: &Task) -> Result<Vm, Failure> {
        let record = self.machines.find(&request.vm)?;
        let grace = request.grace_ms.map_or(STOP_GRACE, Duration::from_millis);
        if self.machines.is_running(&record).await? {
            task.progress("stop", "noting what is in its working copies");
            let noted = async {
                self.workspaces.note_before_stop(&record).await;
                Ok(())
            };
            task.until_cancelled(noted).await?;
        }
        self.machines.stop(&record, grace, task).await?;
        self.machines.describe(&record).await
    }

    async fn vm_exec(&self, request: VmExec) -> Result<Stream, Failure> {
        let record = self.machines.find(&request.vm)?;
        let guest = self.machines.guest(&record).await?;
        let started = crate::exec::exec(guest, &request.command, &self.streams).await;
        self.explained(&record, started).await
    }

    async fn image_build(&self, request: ImageBuild, task: &Task) -> Result<Image, Failure> {
        let name = request.name.unwrap_or_else(crate::vm::default_image);
        let image = if request.force {
            let report = task.clone();
            let progress = move |progress: BuildProgress| {
                report.progress("image", format!("{}: {}", progress.stage, progress.message));
            };
            self.machines
                .images()
                .build(name.as_str(), &progress, task.cancel())
                .await?
        } else {
            self.machines.ensure_image(&name, task).await?
        };
        self.image(image.manifest())
    }

    fn image(&self, manifest: &ImageManifest) -> Result<Image, Failure> {
        let dir = self.dirs.images().join(&manifest.name);
        Ok(Image {
            name: manifest
                .name
                .parse()
                .map_err(|error| Failure::from_error(Kind::Internal, &error))?,
            base: format!("Debian {}", manifest.suite),
            built_at_ms: manifest.created_unix_seconds.saturating_mul(1000),
            disk_bytes: manifest.files.values().map(|file| file.bytes).sum(),
            packages: manifest.packages.len() as u64,
            path: dir.to_string_lossy().into_owned(),
        })
    }

    /// Waits until every request has been taken back or has ended.
    pub(super) async fn settle(&self) {
        self.running.close();
        if tokio::time::timeout(SETTLE_LIMIT, self.running.wait())
            .await
            .is_err()
        {
            tracing::warn!("a request did not end in time; the next daemon takes it back");
        }
    }
}

/// How long requests may take to be taken back when the daemon ends.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

fn plugin(info: &PluginInfo) -> Plugin {
    Plugin {
        name: info.name.clone(),
        version: info.version.clone(),
        summary: info.summary.clone(),
        homepage: info.homepage.clone(),
        interfaces: info.interfaces.clone(),
        provides: info.provides.clone(),
        origin: match &info.origin {
            Origin::Embedded => PluginOrigin::Embedded,
            Origin::File(path) => PluginOrigin::File {
                path: path.to_string_lossy().into_owned(),
            },
        },
        sha256: info.sha256.clone(),
        bytes: info.size,
        overrides: info.overrides,
        error: info.error.clone(),
    }
}

/// This process's resident memory in KiB; 0 where the system does not tell.
fn resident_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        })
        .unwrap_or(0)
}
