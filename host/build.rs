//! Builds the first-party plugins and lists them for `include_bytes!`.
//!
//! It knows no plugin by name: every `cdylib` of the workspace in `plugins/` is one. It downloads
//! nothing that `cargo build --locked` there would not, and installs no toolchain.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

fn main() {
    if let Err(error) = run() {
        // One message, without a backtrace: cargo shows what a build script prints.
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .parent()
        .ok_or("host/ has no parent directory")?
        .canonicalize()?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let plugins = root.join("plugins");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.join("wit").display());
    let components = if plugins.join("Cargo.toml").exists() {
        watch(&plugins)?;
        build(&plugins, &out.join("plugins"))?
    } else {
        println!("cargo::rerun-if-changed={}", plugins.display());
        println!("cargo::warning=there is no plugins/: this banger has no first-party plugins");
        Vec::new()
    };
    fs::write(out.join("embedded_plugins.rs"), list(&components, &out)?)?;
    Ok(())
}

/// Has cargo watch the sources, and not the target directory of who works on a plugin.
fn watch(plugins: &Path) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(plugins).map_err(|e| format!("{}: {e}", plugins.display()))? {
        let entry = entry?;
        if entry.file_name() != "target" {
            println!("cargo::rerun-if-changed={}", entry.path().display());
        }
    }
    Ok(())
}

/// The name of each plugin and its component's path, sorted.
fn build(plugins: &Path, target_dir: &Path) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    require_target(plugins)?;
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(plugins)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    clean_environment(&mut cargo);
    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!("the plugins in {} could not be built", plugins.display()).into());
    }
    let mut components = Vec::new();
    for line in output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line)?;
        let target = &message["target"];
        let is_plugin = message["reason"] == "compiler-artifact"
            && message["manifest_path"]
                .as_str()
                .is_some_and(|path| Path::new(path).starts_with(plugins))
            && target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|k| k == "cdylib"));
        if !is_plugin {
            continue;
        }
        let file = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str())
            .find(|name| name.ends_with(".wasm"));
        if let (Some(name), Some(file)) = (target["name"].as_str(), file) {
            components.push((name.replace('_', "-"), PathBuf::from(file)));
        }
    }
    components.sort();
    Ok(components)
}

/// Says in one sentence what is missing, which rustc would say in twenty.
fn require_target(plugins: &Path) -> Result<(), Box<dyn Error>> {
    let output = Command::new(variable("RUSTC")?)
        .current_dir(plugins)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()?;
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && Path::new(&directory).is_dir() {
        return Ok(());
    }
    Err(format!(
        "banger's plugins are WebAssembly, and this toolchain can't build for {TARGET}.\n\
         Run `rustup toolchain install --no-self-update` in the project's root, or\n\
         `rustup target add {TARGET}` for the toolchain that is in use."
    )
    .into())
}

/// What cargo set for this build must not leak into the nested one: it would wait for our own
/// lock, lint the plugins, or build them all again each time.
fn clean_environment(cargo: &mut Command) {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_TERM_",
        "CARGO_MAKEFLAGS",
    ];
    const DROPPED: [&str; 12] = [
        "CARGO",
        "CLIPPY_",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "__CARGO",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "DEP_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let kept = KEPT.iter().any(|prefix| text.starts_with(prefix));
        if !kept && DROPPED.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

fn list(components: &[(String, PathBuf)], out: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("const PLUGINS: &[Embedded] = &[\n");
    for (name, path) in components {
        // A copy: the nested target directory may change under a running build.
        let copy = out.join(format!("{name}.wasm"));
        fs::copy(path, &copy)?;
        writeln!(
            text,
            "    Embedded {{ name: {name:?}, bytes: include_bytes!({:?}) }},",
            copy.to_str()
                .ok_or("the target directory's path is not UTF-8")?
        )?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
