//! Figures for a large repository: `cargo test --test workspace large -- --ignored --nocapture`.

use crate::world::{Options, World, git, put};
use std::time::Instant;

#[test]
#[ignore = "50,000 files"]
fn fifty_thousand_files() {
    let world = World::new();
    let mut state = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Compresses somewhat, as text does.
                b"abcdefghijklmnop"[(state >> 60) as usize]
            })
            .collect()
    };
    for n in 0..50_000 {
        put(
            world
                .user()
                .join(format!("d{}/e{}/f{n}", n % 50, n / 50 % 50)),
            noise(10_000),
        );
    }
    world.commit("all");
    git(&world.user(), &["gc", "-q"]);
    put(world.user().join("dirty"), noise(100_000));
    for (name, options) in [
        ("shallow", Options::shallow()),
        ("full", Options::full().force()),
    ] {
        let time = |what: &str| {
            let began = Instant::now();
            let taken = world.snapshot(&world.user(), &options).expect("read");
            let reading = began.elapsed();
            drop(taken);
            let began = Instant::now();
            let bytes = world.prepare(&options).ok().bytes;
            eprintln!(
                "{name}, {what}: {:?}, of it reading {reading:?}; {bytes} bytes",
                began.elapsed()
            );
        };
        time("first");
        time("again, nothing changed");
        for n in 0..10 {
            put(world.user().join(format!("d{n}/e0/f{n}")), noise(10_000));
        }
        time("again, ten files");
    }
}
