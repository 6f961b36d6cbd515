//! What plugins cost: `cargo run --release -p banger-host --example plugin_figures`.
//!
//! The last line is JSON, which `cargo xtask bench` reads.

use banger_core::SessionId;
use banger_core::session::StdinKind;
use banger_host::plugin::{LaunchRequest, Registry, Session, embedded};
use std::time::{Duration, Instant};

fn rss_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .trim_end_matches(" kB")
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// The median of many runs.
fn median<T>(runs: usize, mut run: impl FnMut() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            let value = run();
            let time = start.elapsed();
            drop(value);
            time
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let before = rss_kib("VmRSS:");
    let cache = std::env::temp_dir().join(format!("banger-figures-{}", std::process::id()));
    let cached = std::env::args().nth(1).map(std::path::PathBuf::from);
    let directory = cached.as_ref().unwrap_or(&cache);
    let load = || Registry::load(embedded(), None, Some(directory));
    let start = Instant::now();
    let registry = load()?;
    println!(
        "first load: {:?}, {} compiled",
        start.elapsed(),
        registry.compiled()
    );
    for field in ["VmRSS:", "RssAnon:", "RssFile:"] {
        println!("{field} {} KiB (at start VmRSS {before})", rss_kib(field));
    }
    let load_cached = median(20, load);
    println!("load all from the cache: {load_cached:?}");
    let load_cold = median(3, || Registry::load(embedded(), None, None));
    println!("load all without a cache: {load_cold:?}");
    let mut call = None;
    for info in registry.list() {
        println!(
            "{} {}: {} bytes, {:?}",
            info.name, info.version, info.size, info.error
        );
    }
    if let Some(backend) = registry.session_backends().first() {
        let session = Session {
            id: SessionId::from_random([0; 6]),
            state_root: "/root/.local/state/banger/sessions".parse()?,
            stdin_kind: StdinKind::Pipe,
        };
        let launch = LaunchRequest {
            session: session.clone(),
            command: vec![b"sleep".to_vec(), b"1".to_vec()],
            environment: Vec::new(),
            cwd: "/root".parse()?,
            columns: 80,
            rows: 24,
            log_limit: 0,
            host_record: Vec::new(),
            options: Vec::new(),
        };
        println!(
            "session-backend.paths: {:?}",
            median(2000, || backend.paths(&session))
        );
        let launch = median(2000, || backend.launch(&launch));
        println!("session-backend.launch: {launch:?}");
        call = Some(launch);
        let pause = || std::thread::sleep(Duration::from_millis(150));
        pause();
        let start = Instant::now();
        backend.paths(&session)?;
        println!("session-backend.paths after a pause: {:?}", start.elapsed());
    }
    println!("VmRSS: {} KiB at the end", rss_kib("VmRSS:"));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{}",
        serde_json::json!({
            "call_us": call.map(|time| ms(time) * 1e3),
            "load_cached_ms": ms(load_cached),
            "load_cold_ms": ms(load_cold),
        })
    );
    std::fs::remove_dir_all(&cache).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}
