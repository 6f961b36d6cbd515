//! The clock that stops plugins which run for too long.
//!
//! It ticks only while calls run: an idle daemon is never woken. It measures nothing and knows
//! no deadline; that is the store's.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wasmtime::EngineWeak;

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(50);

/// A thread that advances the engine's epoch while a call runs. Dropping it ends the thread.
pub struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    engine: EngineWeak,
}

#[derive(Default)]
struct State {
    /// Calls that run now.
    running: usize,
    /// Calls that began since the last tick.
    began: bool,
    phase: Phase,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Phase {
    /// There is no thread: none was needed yet, or none could be started.
    #[default]
    None,
    /// The thread waits for a call to begin.
    Parked,
    Ticking,
    /// The ticker was dropped.
    Ended,
}

/// A call in progress; the ticker may park once all of them are dropped.
pub struct Running {
    shared: Arc<Shared>,
}

impl Ticker {
    /// A ticker whose thread starts with the first call.
    pub fn new(engine: EngineWeak) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                engine,
            }),
        }
    }

    /// Says that a call begins.
    ///
    /// # Errors
    /// Where the thread can't be started: without it no call may run.
    pub fn begin(&self) -> std::io::Result<Running> {
        let mut state = self.shared.lock();
        match state.phase {
            Phase::None => {
                let shared = Arc::clone(&self.shared);
                std::thread::Builder::new()
                    .name("plugin-ticker".into())
                    .stack_size(64 * 1024)
                    .spawn(move || shared.tick())?;
                state.phase = Phase::Ticking;
            }
            Phase::Parked => {
                state.phase = Phase::Ticking;
                self.shared.changed.notify_all();
            }
            Phase::Ticking | Phase::Ended => {}
        }
        state.running += 1;
        state.began = true;
        drop(state);
        Ok(Running {
            shared: Arc::clone(&self.shared),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().phase = Phase::Ended;
        self.shared.changed.notify_all();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.lock().running -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread. It parks after one whole tick in which no call ran, so that a burst of short
    /// calls wakes it once.
    fn tick(&self) {
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Ended if state.running == 0 => return,
                Phase::None | Phase::Parked => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Phase::Ticking | Phase::Ended => {
                    state = self
                        .changed
                        .wait_timeout(state, TICK)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    match self.engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                    if state.phase == Phase::Ticking && state.running == 0 && !state.began {
                        state.phase = Phase::Parked;
                        self.changed.notify_all();
                    }
                    state.began = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(ticker: &Ticker, phase: Phase) {
        let (state, timeout) = ticker
            .shared
            .changed
            .wait_timeout_while(ticker.shared.lock(), 100 * TICK, |s| s.phase != phase)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out() && state.phase == phase);
    }

    #[test]
    fn it_ticks_while_a_call_runs_and_parks_afterwards() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::new(engine.weak());
        for _ in 0..2 {
            let call = ticker.begin().expect("a thread");
            let (state, _) = ticker
                .shared
                .changed
                .wait_timeout_while(ticker.shared.lock(), 4 * TICK, |s| s.phase != Phase::Parked)
                .unwrap_or_else(PoisonError::into_inner);
            assert!(
                state.phase == Phase::Ticking,
                "it does not park during a call"
            );
            drop(state);
            drop(call);
            wait_for(&ticker, Phase::Parked);
        }
    }

    #[test]
    fn its_thread_ends_with_it() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::new(engine.weak());
        drop(ticker.begin().expect("a thread"));
        let shared = Arc::downgrade(&ticker.shared);
        // The thread then holds the only count, and the drop wakes it.
        drop(ticker);
        let start = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(start.elapsed() < 100 * TICK, "the thread still runs");
            std::thread::yield_now();
        }
    }
}
