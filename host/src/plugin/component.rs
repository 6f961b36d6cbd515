//! One component: checked, compiled, asked who it is and which interfaces it exports.
//!
//! Refused are: everything that is no component, a component that imports more than types, and
//! one whose interfaces have our names and other versions or types.

use super::bindings;
use super::cache::{CodeCache, Sha256Digest, TrustedCode};
use super::engine::{COMPONENT_LIMIT, Runtime, Usage, first_line};
use super::error::{Fault, PluginError};
use super::{CONTRACT, validate};
use banger_core::PluginName;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{Engine, Precompiled, Store};

const PACKAGE: &str = "banger:plugin/";

/// A component that is ready to be called.
pub struct Plugin {
    /// "ssh-session 0.1.0", for errors.
    pub label: String,
    pub name: PluginName,
    pub version: String,
    pub summary: String,
    pub homepage: String,
    pub interfaces: Vec<Interface>,
    pub session_backend: Option<bindings::session_backend::GuestIndices>,
    pub preflight: Option<bindings::preflight::GuestIndices>,
    pub workspace: Option<bindings::workspace::GuestIndices>,
    pub code: CodeOrigin,
    runtime: Runtime,
    pre: InstancePre<Usage>,
}

/// An interface of package `banger:plugin` that a component exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub version: String,
}

/// Where the compiled code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeOrigin {
    /// Compiled just now.
    Compiled,
    /// Read from the cache.
    Cache,
}

pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256::digest(bytes).into()
}

impl Plugin {
    /// Makes a component ready. `file` names it until it has told its own name.
    pub fn load(
        runtime: &Runtime,
        cache: Option<&CodeCache>,
        file: &str,
        bytes: &[u8],
        sha256: &Sha256Digest,
    ) -> Result<Arc<Self>, PluginError> {
        let start = || -> Result<_, Fault> {
            let (component, code) = compile(runtime.engine(), cache, bytes, sha256)?;
            refuse_imports(runtime.engine(), &component)?;
            let interfaces = interfaces(runtime.engine(), &component)?;
            let pre = runtime.link(&component)?;
            let info = describe(runtime, &pre)?;
            Ok((code, interfaces, pre, info))
        };
        let (code, interfaces, pre, info) = start().map_err(|fault| fault.of(file))?;
        let checked = |text: &str, limit, what| {
            validate::line(text, limit, what).map_err(|detail| forbidden_metadata(detail).of(file))
        };
        let name: PluginName =
            info.name
                .parse()
                .map_err(|error: banger_core::id::InvalidName| {
                    forbidden_metadata(error.to_string()).of(file)
                })?;
        validate::version(&info.version).map_err(|detail| forbidden_metadata(detail).of(file))?;
        checked(&info.summary, 200, "the summary")?;
        checked(&info.homepage, 200, "the homepage")?;
        let mut plugin = Self {
            label: format!("{name} {}", info.version),
            name,
            version: info.version,
            summary: info.summary,
            homepage: info.homepage,
            interfaces,
            session_backend: None,
            preflight: None,
            workspace: None,
            code,
            runtime: runtime.clone(),
            pre,
        };
        plugin.bind().map_err(|fault| fault.of(&plugin.label))?;
        Ok(Arc::new(plugin))
    }

    /// Calls a function of the plugin in a new instance.
    pub fn call<T>(
        &self,
        function: &'static str,
        input: usize,
        call: impl FnOnce(&mut Store<Usage>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let run = || self.runtime.call(&self.pre, function, input, call);
        let several_threads = tokio::runtime::Handle::try_current().is_ok_and(|handle| {
            handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
        });
        let result = if several_threads {
            // A plugin that loops must not hold up what else this thread would do.
            tokio::task::block_in_place(run)
        } else {
            run()
        };
        result.map_err(|fault| fault.of(&self.label))
    }

    /// Makes an error of this plugin.
    pub fn error(&self, fault: Fault) -> PluginError {
        fault.of(&self.label)
    }

    /// Finds the interfaces that this banger knows and checks their types, so that later calls
    /// can only fail in the plugin.
    fn bind(&mut self) -> Result<(), Fault> {
        macro_rules! bind {
            ($field:ident, $name:literal) => {
                if self.exports($name) {
                    let wrong = || Fault::WrongTypes {
                        interface: $name,
                        version: CONTRACT,
                    };
                    let indices =
                        bindings::$field::GuestIndices::new(&self.pre).map_err(|_| wrong())?;
                    self.runtime
                        .call(&self.pre, $name, 0, |store, instance| {
                            Ok(indices.load(store, instance).is_ok())
                        })?
                        .then_some(())
                        .ok_or_else(wrong)?;
                    self.$field = Some(indices);
                }
            };
        }
        bind!(session_backend, "session-backend");
        bind!(preflight, "preflight");
        bind!(workspace, "workspace");
        Ok(())
    }

    fn exports(&self, name: &str) -> bool {
        self.interfaces
            .iter()
            .any(|interface| interface.name == name && interface.version == CONTRACT)
    }
}

fn forbidden_metadata(detail: String) -> Fault {
    Fault::Forbidden {
        function: "metadata.describe",
        detail,
    }
}

fn compile(
    engine: &Engine,
    cache: Option<&CodeCache>,
    bytes: &[u8],
    sha256: &Sha256Digest,
) -> Result<(Component, CodeOrigin), Fault> {
    if bytes.len() > COMPONENT_LIMIT {
        return Err(Fault::TooLarge);
    }
    if let Some(found) = other_format(bytes) {
        return Err(Fault::NotComponent { found });
    }
    if let Some(code) = cache.and_then(|cache| cache.get(sha256))
        && let Ok(component) = code.load(engine)
    {
        return Ok((component, CodeOrigin::Cache));
    }
    let damaged = |error| Fault::Damaged {
        detail: first_line(&error),
    };
    let code = TrustedCode::compile(engine, bytes).map_err(damaged)?;
    if let Some(cache) = cache {
        cache.put(sha256, &code);
    }
    let component = code.load(engine).map_err(damaged)?;
    Ok((component, CodeOrigin::Compiled))
}

/// What a file is that is no component.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const PRECOMPILED: &str =
        "it is precompiled code, which banger never loads: give it the component";
    match bytes {
        [] => Some("it is empty"),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => None,
        [0, b'a', b's', b'm', ..] => {
            Some("it is a core module, to which the component's types must be added")
        }
        _ if Engine::detect_precompiled(bytes).is_some_and(|kind| match kind {
            Precompiled::Module | Precompiled::Component => true,
        }) =>
        {
            Some(PRECOMPILED)
        }
        [0x7f, b'E', b'L', b'F', ..] => Some(PRECOMPILED),
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            Some("it is WebAssembly text, which must be assembled first")
        }
        _ => Some("it does not begin like one"),
    }
}

/// An import of an interface that has types alone is how an interface uses another one's types:
/// it gives the component nothing.
fn refuse_imports(engine: &Engine, component: &Component) -> Result<(), Fault> {
    let ty = component.component_type();
    for (name, item) in ty.imports(engine) {
        let harmless = match &item.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(engine)
                .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))),
            ComponentItem::Type(_) => true,
            ComponentItem::ComponentFunc(_)
            | ComponentItem::CoreFunc(_)
            | ComponentItem::Module(_)
            | ComponentItem::Component(_)
            | ComponentItem::Resource(_) => false,
        };
        if !harmless {
            return Err(Fault::Imports {
                import: validate::shown(name.as_bytes()),
            });
        }
    }
    Ok(())
}

/// The interfaces of ours that a component exports. One that this banger does not know is no
/// error: the plugin may do more elsewhere.
fn interfaces(engine: &Engine, component: &Component) -> Result<Vec<Interface>, Fault> {
    let ty = component.component_type();
    let mut found: Vec<Interface> = ty
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_)))
        .filter_map(|(name, _)| name.strip_prefix(PACKAGE)?.split_once('@'))
        .filter(|(name, _)| *name != "types")
        .map(|(name, version)| Interface {
            name: name.to_owned(),
            version: version.to_owned(),
        })
        .collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    for name in ["metadata", "session-backend", "preflight", "workspace"] {
        let versions: Vec<&str> = found
            .iter()
            .filter(|interface| interface.name == name)
            .map(|interface| interface.version.as_str())
            .collect();
        match versions.as_slice() {
            [] if name == "metadata" => return Err(Fault::NoMetadata),
            [.., last] if !versions.contains(&CONTRACT) => {
                return Err(Fault::InterfaceVersion {
                    interface: name.to_owned(),
                    found: validate::shown(last.as_bytes()),
                    speaks: CONTRACT,
                    advice: if validate::is_newer(last, CONTRACT) {
                        ": upgrade banger"
                    } else {
                        ": install a newer release of the plugin"
                    },
                });
            }
            _ => {}
        }
    }
    Ok(found)
}

fn describe(
    runtime: &Runtime,
    pre: &InstancePre<Usage>,
) -> Result<bindings::metadata::Info, Fault> {
    let wrong = || Fault::WrongTypes {
        interface: "metadata",
        version: CONTRACT,
    };
    let indices = bindings::metadata::GuestIndices::new(pre).map_err(|_| wrong())?;
    runtime
        .call(pre, "metadata.describe", 0, |store, instance| {
            let Ok(guest) = indices.load(&mut *store, instance) else {
                return Ok(None);
            };
            guest.call_describe(store).map(Some)
        })?
        .ok_or_else(wrong)
}
