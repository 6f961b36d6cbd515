//! Logs: what is kept of them, who may read it, and since when.
#![allow(missing_docs, clippy::unwrap_used)]

mod guest;

use banger_plugin_testing::{eventually, exit_code};
use banger_ssh_session::Plugin;
use banger_ssh_session::contract::{Guest as _, OutputStream};
use guest::{Guest, children, follow, is_alive, kill};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

const MIB: u64 = 1 << 20;

/// What the writer has written up to there.
fn written(bytes: u64) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 1..=bytes / 16 {
        writeln!(all, "{number:015}").unwrap();
    }
    all
}

/// A program that writes as many bytes as each line of its input says, as lines that count up. Its log
/// keeps the last MiB.
fn limited() -> Guest {
    let guest = Guest::new();
    let script =
        b"exec 3<&0; seq -f %015.0f 1 10000000 | while read -r n <&3; do head -c \"$n\"; done";
    guest.launched_with_limit("a", MIB, &[b"bash", b"-c", script]);
    guest
}

fn write(guest: &Guest, bytes: u64, total: u64) {
    assert!(
        guest
            .send("a", 5000, format!("{bytes}\n").as_bytes())
            .status
            .success()
    );
    eventually("the program writes", || {
        (guest.one("a").stdout_bytes == total).then_some(())
    });
}

/// Whether so many bytes are as many as shall be kept.
fn keeps(bytes: u64) -> bool {
    (MIB..=MIB * 5 / 4).contains(&bytes)
}

fn start(guest: &Guest, wanted: impl Fn(u64) -> bool) -> u64 {
    eventually("the beginning is freed", || {
        guest.wake_keeper();
        Some(guest.one("a").stdout_start).filter(|start| wanted(*start))
    })
}

#[test]
fn a_log_keeps_its_end_and_every_offset() {
    let guest = limited();
    write(&guest, 8 * MIB, 8 * MIB);
    let start = start(&guest, |start| keeps(8 * MIB - start));
    let log = Plugin::paths(guest.session("a")).stdout;
    eventually("the blocks are freed", || {
        let metadata = std::fs::metadata(&log).unwrap();
        (metadata.len() == 8 * MIB && metadata.blocks() * 512 <= MIB * 5 / 4).then_some(())
    });
    let all = written(8 * MIB);
    let kept = usize::try_from(start).unwrap();
    let printed = guest.log("a", start + 5);
    assert!(printed.status.success() && printed.stdout == all[kept + 5..]);
    for follow in [false, true] {
        let script =
            Plugin::attach_output(guest.session("a"), OutputStream::Stdout, start - 1, follow);
        let refused = guest.run(script.unwrap(), b"");
        assert_eq!(exit_code(&refused), 5, "{refused:?}");
        assert!(refused.stdout.is_empty());
    }
    for (lines, length) in [(2, 32), (u64::MAX, all.len() - kept)] {
        let script = Plugin::offset_of_lines(guest.session("a"), OutputStream::Stdout, lines);
        let offset = format!("{}\n", all.len() - length);
        assert_eq!(guest.run(script.unwrap(), b"").stdout, offset.as_bytes());
    }
    let readers = format!("{}/readers", guest.dir("a"));
    assert_eq!(std::fs::read_dir(readers).unwrap().count(), 0);
    // What it writes last counts as well.
    write(&guest, 3 * MIB, 11 * MIB);
    guest.run(Plugin::stop(guest.session("a"), 0).unwrap(), b"");
    eventually("the last look", || {
        guest.wake_keeper();
        keeps(11 * MIB - guest.one("a").stdout_start).then_some(())
    });
    eventually("the keeper ends", || {
        guest.wake_keeper();
        guest.keeper().is_none().then_some(())
    });
}

#[test]
fn what_a_follower_has_still_to_read_is_kept() {
    let guest = limited();
    let mut reader = follow(&guest, "a", 0);
    let mut output = reader.stdout.take().unwrap();
    write(&guest, MIB, MIB);
    let mut seen = vec![0; 100_000];
    output.read_exact(&mut seen).unwrap();
    // It reads no more. Tail has read a little that it could not print.
    write(&guest, MIB, 2 * MIB);
    let begins = start(&guest, |start| start > 0);
    assert!((1..400_000).contains(&begins), "{begins}");
    guest.run(Plugin::stop(guest.session("a"), 0).unwrap(), b"");
    output.read_to_end(&mut seen).unwrap();
    assert!(reader.wait().unwrap().success());
    assert!(seen == written(2 * MIB));
    start(&guest, |start| keeps(2 * MIB - start));
}

#[test]
fn a_follower_that_falls_far_behind_is_told_so() {
    let guest = limited();
    let script = Plugin::attach_output(guest.session("a"), OutputStream::Stdout, 0, true);
    let mut reader = guest.spawn(script.unwrap());
    write(&guest, MIB, MIB);
    let mut seen = vec![0; 1000];
    let mut output = reader.stdout.take().unwrap();
    output.read_exact(&mut seen).unwrap();
    write(&guest, 3 * MIB, 4 * MIB);
    start(&guest, |start| keeps(4 * MIB - start));
    output.read_to_end(&mut seen).unwrap();
    let ended = reader.wait_with_output().unwrap();
    assert_eq!(exit_code(&ended), 5, "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("fell behind"));
    assert!(seen == written(MIB * 2)[..seen.len()]);
}

#[test]
fn a_reader_that_was_killed_holds_nothing_back() {
    let guest = limited();
    let reader = follow(&guest, "a", 0);
    let readers = format!("{}/readers", guest.dir("a"));
    eventually("it is registered", || {
        let mut all = std::fs::read_dir(&readers).unwrap();
        let file = all.next()?.unwrap().path();
        std::fs::read_to_string(file)
            .unwrap()
            .contains(' ')
            .then_some(())
    });
    let started = eventually("its processes", || {
        Some(children(reader.id())).filter(|all| all.len() == 3)
    });
    kill(&reader.id().to_string(), "KILL");
    drop(reader);
    for child in started {
        eventually("they end as its stdin does", || {
            (!is_alive(&child)).then_some(())
        });
    }
    write(&guest, 2 * MIB, 2 * MIB);
    start(&guest, |start| keeps(2 * MIB - start));
    assert_eq!(std::fs::read_dir(&readers).unwrap().count(), 0);
}

#[test]
fn a_killed_keeper_is_started_again() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let first = eventually("a keeper", || guest.keeper());
    guest.launched("b", &[b"cat"]);
    assert_eq!(guest.keeper().as_ref(), Some(&first));
    kill(&first, "KILL");
    eventually("it is gone", || (!is_alive(&first)).then_some(()));
    guest.launched("c", &[b"cat"]);
    eventually("another keeper", || {
        guest.keeper().filter(|keeper| *keeper != first)
    });
}

#[test]
fn followers_end_soon_after_the_session() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let mut reader = follow(&guest, "a", 0);
    guest.send("a", 5000, b"x");
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .unwrap();
    guest.run(Plugin::close_input(guest.session("a"), 5000).unwrap(), b"");
    guest.ended("a");
    let began = std::time::Instant::now();
    assert!(reader.wait().unwrap().success());
    // 0.1 s and what the machine needs; a wait for the supervisor's burial would be far longer.
    assert!(began.elapsed().as_millis() < 1000, "{:?}", began.elapsed());
}

fn since(guest: &Guest, age_ms: u64) -> String {
    let script = Plugin::offset_since(guest.session("a"), OutputStream::Stdout, age_ms).unwrap();
    let output = guest.run(script, b"");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_was_written_since_then_begins_there_or_earlier() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let times = format!("{}/stdout-times", guest.dir("a"));
    guest.send("a", 5000, b"0123456789");
    let line = eventually("the index", || {
        guest.wake_keeper();
        std::fs::read_to_string(&times)
            .ok()
            .filter(|line| line.ends_with(" 10\n"))
    });
    assert_eq!(line.split(' ').count(), 3);
    assert_eq!(since(&guest, 0), "10\n");
    assert_eq!(since(&guest, u64::MAX), "0\n");
    guest.send("a", 5000, b"abc");
    eventually("it goes on", || {
        guest.wake_keeper();
        std::fs::read_to_string(&times)
            .unwrap()
            .ends_with(" 13\n")
            .then_some(())
    });

    // By the time since the boot, whatever the time of day was; by that after another boot.
    kill(&guest.keeper().unwrap(), "KILL");
    let up = std::fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let up = (up * 1000.0) as u64;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = u64::try_from(now.unwrap().as_millis()).unwrap();
    let day = 86_400_000;
    let index = format!(
        "{} {} 5\ngarbage\n{} {} 8\n{} {} 11\n",
        up - 50_000,
        now - 50_000,
        up - 30_000,
        // The clock was a day ahead, then was set right.
        now + day,
        up - 10_000,
        now - 10_000
    );
    std::fs::write(&times, index).unwrap();
    for (age, expected) in [
        (5_000, "11\n"),
        (20_000, "8\n"),
        (40_000, "5\n"),
        (60_000, "0\n"),
    ] {
        assert_eq!(since(&guest, age), expected, "{age}");
    }
    let boot_file = format!("{}/boot-id", guest.dir("a"));
    let boot = std::fs::read(&boot_file).unwrap();
    std::fs::write(&boot_file, "another\n").unwrap();
    for (age, expected) in [(5_000, "5\n"), (40_000, "5\n"), (60_000, "0\n")] {
        assert_eq!(since(&guest, age), expected, "{age}");
    }
    std::fs::write(format!("{}/stdout-start", guest.dir("a")), "7\n").unwrap();
    assert_eq!(since(&guest, 40_000), "7\n");
    std::fs::write(&boot_file, boot).unwrap();
}

#[test]
fn much_that_is_there_already_is_followed_by_what_comes() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let piece: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    assert!(guest.send("a", 20_000, &piece).status.success());
    eventually("it is there", || {
        (guest.one("a").stdout_bytes == 4_000_000).then_some(())
    });
    let readers = [0, 5].map(|offset| (offset, follow(&guest, "a", offset)));
    assert!(guest.send("a", 20_000, &piece).status.success());
    let all = piece.repeat(2);
    let threads = readers.map(|(offset, mut reader)| {
        let all = all.clone();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            reader
                .stdout
                .take()
                .unwrap()
                .read_to_end(&mut seen)
                .unwrap();
            assert!(reader.wait().unwrap().success());
            let offset = usize::try_from(offset).unwrap();
            assert!(seen == all[offset..], "{} bytes", seen.len());
        })
    });
    eventually("all is there", || {
        (guest.one("a").stdout_bytes == 8_000_000).then_some(())
    });
    guest.run(Plugin::stop(guest.session("a"), 1000).unwrap(), b"");
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(guest.log("a", 3_999_999).stdout == all[3_999_999..]);
}
