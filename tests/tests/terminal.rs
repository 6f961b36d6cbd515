//! Does a person at a real terminal see a full-screen program as it is, through resizes, detaches and
//! a daemon that is killed, and is the terminal given back on every way out?

use banger_tests::home::{HOST, Home};
use banger_tests::screen::Screen;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

const DETACH: &str = "\x1d";
const ESCAPE: &str = "\x1b";

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// A session of vim on a terminal, without anybody's settings. Its status line is always there.
fn vim(home: &Home) {
    let words = [
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        "ed",
        "--stdin",
        "tty",
        "--size",
        "70x20",
        "--",
        "vim",
        "-N",
        "-u",
        "NONE",
        "-i",
        "NONE",
        "-n",
        "-c",
        r"set laststatus=2 statusline=%f%m\ %{&columns}x%{&lines}",
        "notes",
    ];
    let _ = home.run(words).ok();
}

fn attach(home: &Home, more: &[&str], columns: u16, rows: u16) -> Screen {
    let words = ["vm", "session", "attach", HOST, "ed"];
    let words: Vec<&str> = words.iter().chain(more).copied().collect();
    Screen::open(home, &words, columns, rows).expect("a terminal")
}

#[track_caller]
fn is_given_back(screen: &Screen) {
    screen.until("the screen is given back", |screen| {
        !screen.alternate_screen()
            && !screen.hide_cursor()
            && !screen.application_cursor()
            && !screen.application_keypad()
            && !screen.bracketed_paste()
            && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
    });
    assert!(
        screen.has_its_modes(),
        "the terminal's modes are those before"
    );
}

#[test]
fn a_full_screen_program_is_drawn_resized_left_and_drawn_again() {
    let home = home();
    vim(&home);
    let mut first = attach(&home, &[], 80, 24);
    first.shows("80x24");
    first.until("vim's own screen", vt100::Screen::alternate_screen);
    assert!(!first.has_its_modes(), "raw");
    first.type_keys(&format!("ihello\rfrom here{ESCAPE}"));
    let text = first.shows("from here");
    assert!(text.starts_with("hello\nfrom here\n~"), "{text}");
    first.shows("80x24");
    first.resize(100, 30);
    first.shows("100x30");
    first.until("on the last line but one", |screen| {
        screen
            .rows(0, 100)
            .nth(28)
            .is_some_and(|row| row.contains("100x30"))
    });

    // Another looks on, with a size of its own, which is nobody else's business.
    let mut second = attach(&home, &["--observe"], 50, 12);
    second.shows("from here");
    first.shows("100x30");
    second.resize(55, 13);
    first.resize(95, 28);
    first.shows("95x28");
    second.type_keys("xxx");
    first.type_keys(&format!("Go'third{ESCAPE}"));
    second.shows("'third");
    assert!(
        first
            .shows("'third")
            .starts_with("hello\nfrom here\n'third"),
        "observers type nothing"
    );

    first.type_keys(DETACH);
    assert_eq!(first.ended(), 0);
    is_given_back(&first);
    first.shows("detached");
    // What is done meanwhile is there later.
    let words = [
        "vm",
        "session",
        "send",
        HOST,
        "ed",
        "--message",
        "Gofourth\u{1b}",
    ];
    let _ = home.run(words).ok();
    second.shows("fourth");
    let mut again = attach(&home, &[], 90, 25);
    again.shows("fourth");
    again.shows("90x25");

    again.type_keys(":q!\r");
    assert_eq!(again.ended(), 0);
    is_given_back(&again);
    assert_eq!(second.ended(), 0, "whoever looks on learns of the end");
    is_given_back(&second);
    assert_eq!(home.session("ed")["snapshot"]["exit_code"], 0);
}

#[test]
fn the_screen_comes_back_by_itself_after_the_daemon_was_killed() {
    let home = home();
    vim(&home);
    let mut screen = attach(&home, &[], 80, 24);
    screen.shows("notes");
    screen.type_keys(&format!("ikept{ESCAPE}"));
    screen.shows("kept");
    for round in 0..3 {
        home.kill_next_daemon();
        screen.shows("connection lost");
        screen.wipe();
        screen.shows("kept");
        screen.until("vim's own screen", vt100::Screen::alternate_screen);
        screen.type_keys(&format!("Goround {round}{ESCAPE}"));
        screen.shows(&format!("round {round}"));
        screen.shows("80x24");
    }
    // The window is pulled while there is no daemon.
    home.kill_next_daemon();
    screen.shows("connection lost");
    screen.wipe();
    screen.resize(95, 27);
    screen.shows("round 2");
    screen.shows("95x27");
    screen.type_keys(DETACH);
    assert_eq!(screen.ended(), 0);
    is_given_back(&screen);
}

#[test]
fn what_is_typed_while_the_guest_is_away_is_refused_aloud_and_never_half_sent() {
    let mut home = home();
    vim(&home);
    let mut screen = attach(&home, &[], 80, 24);
    screen.shows("80x24");
    home.sshd.as_mut().expect("an sshd").stop();
    screen.shows("connection lost");
    let bells = screen.bells();
    screen.type_keys(&format!("iLOST{ESCAPE}"));
    screen.until_bells(bells + 1);
    home.sshd
        .as_mut()
        .expect("an sshd")
        .resume()
        .expect("it listens again");
    screen.wipe();
    screen.shows("80x24");
    screen.type_keys(&format!("isent{ESCAPE}"));
    let text = screen.shows("sent");
    assert!(
        !text.contains("LOST") && text.starts_with("sent\n"),
        "{text}"
    );
}

#[test]
fn the_terminal_is_given_back_on_every_way_out() {
    let home = home();
    let drawn = || {
        let screen = attach(&home, &[], 80, 24);
        screen.shows("notes");
        screen.until("vim's own screen", vt100::Screen::alternate_screen);
        assert!(!screen.has_its_modes(), "raw");
        screen
    };
    vim(&home);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::USR1] {
        let screen = drawn();
        screen.signal(signal);
        screen.ended();
        is_given_back(&screen);
    }
    let mut screen = attach(&home, &["--detach-key", "ctrl-q"], 80, 24);
    screen.shows("notes");
    screen.type_keys(&format!("i{DETACH}typed{ESCAPE}"));
    screen.shows("typed");
    screen.type_keys("\x11");
    assert_eq!(screen.ended(), 0, "another key");
    is_given_back(&screen);

    let loser = drawn();
    let winner = attach(&home, &["--takeover"], 80, 24);
    assert_eq!(loser.ended(), 125);
    is_given_back(&loser);
    loser.shows("taken over");
    winner.shows("typed");
    drop(winner);

    // The daemon is gone for good: another holds its lock, and answers nobody.
    let mut screen = drawn();
    let _ = home.run(["daemon", "stop"]).ok();
    let lock = std::fs::File::open(home.banger_home().join("state/daemon.lock")).expect("there");
    // Unless the client was quicker, in which case its daemon is killed.
    banger_tests::until("the lock is ours", || {
        if let Some(pid) = home.holder() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    screen.shows("connection lost");
    screen.type_keys(DETACH);
    assert_eq!(screen.ended(), 0);
    is_given_back(&screen);
    drop(lock);

    // The session's program is killed, and its supervisor too.
    let screen = drawn();
    home.kill_unseen("ed");
    assert_eq!(screen.ended(), 125);
    is_given_back(&screen);
}

#[test]
fn a_terminal_session_has_the_size_that_it_was_given() {
    let home = home();
    let script = "trap 'stty size' WINCH; stty size; while :; do read -r -t 0.1; done";
    let words = [
        "vm", "session", "start", HOST, "--name", "ed", "-t", "--size", "101x33", "--", "bash",
        "-c", script,
    ];
    let _ = home.run(words).ok();
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "ed", "--follow"]);
    logs.until("33 101");
    let _ = home
        .run(["vm", "session", "resize", HOST, "ed", "132x43"])
        .ok();
    logs.until("43 132");
    for bad in ["0x10", "132", "x", "10x0", "70000x3"] {
        let words = ["vm", "session", "resize", HOST, "ed", bad];
        assert_eq!(home.run(words).code, Some(2), "{bad}");
    }
    // Without a terminal of ours the bytes are passed on.
    let mut plain = home.spawn([
        "vm",
        "session",
        "attach",
        HOST,
        "ed",
        "--no-tty",
        "--observe",
    ]);
    plain.until_error("observing");
    let _ = home
        .run(["vm", "session", "resize", HOST, "ed", "99x44"])
        .ok();
    plain.until("44 99");
}

#[test]
fn other_full_screen_programs_are_drawn() {
    let has_htop = std::process::Command::new("htop")
        .arg("--version")
        .output()
        .is_ok();
    if !has_htop {
        eprintln!("there is no htop here");
        return;
    }
    let home = home();
    let words = [
        "vm", "session", "start", HOST, "--name", "ed", "--stdin", "tty", "--", "htop",
    ];
    let _ = home.run(words).ok();
    let mut screen = attach(&home, &[], 100, 30);
    screen.shows("F10");
    screen.type_keys("q");
    assert_eq!(screen.ended(), 0);
    is_given_back(&screen);
}
