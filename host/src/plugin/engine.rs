//! The engine: compiles components and runs one call at a time in a store of its own.
//!
//! It offers components nothing to import and knows none of the interfaces. It never keeps an
//! instance between two calls, so that no call can depend on an earlier one.

use super::error::Fault;
use super::ticker::{TICK, Ticker};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap};

/// The time that a call may take.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// The linear memory that a call may use, in bytes, over all memories of a component.
pub const MEMORY_LIMIT: usize = 64 << 20;
/// The stack that a call may use, in bytes. A thread that calls needs as much again.
pub const STACK_LIMIT: usize = 512 << 10;
/// The size of everything that is passed to a call, in bytes.
pub const INPUT_LIMIT: usize = 4 << 20;
/// The size of everything that a call returns, in bytes, as it lies in the host's memory.
pub const OUTPUT_LIMIT: usize = 8 << 20;
/// The size of a component, in bytes.
pub const COMPONENT_LIMIT: usize = 16 << 20;

/// Table entries, over all tables of a component.
const TABLE_LIMIT: usize = 100_000;
/// Core instances, memories and tables, each.
const ITEM_LIMIT: usize = 32;

/// What all plugins share. Cloning it is cheap.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linker: Linker<Usage>,
    ticker: Ticker,
}

impl Runtime {
    /// An engine with no plugin.
    ///
    /// # Errors
    /// Where this machine can't run it: no executable memory may be mapped, say.
    pub fn new() -> Result<Self, Fault> {
        let engine = Engine::new(&config()).map_err(|error| Fault::Engine {
            detail: first_line(&error),
        })?;
        let ticker = Ticker::new(engine.weak());
        Ok(Self {
            inner: Arc::new(Inner {
                linker: Linker::new(&engine),
                engine,
                ticker,
            }),
        })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Resolves a component's imports, of which only types are tolerated.
    pub(super) fn link(&self, component: &Component) -> Result<InstancePre<Usage>, Fault> {
        self.inner
            .linker
            .instantiate_pre(component)
            .map_err(|error| Fault::Damaged {
                detail: first_line(&error),
            })
    }

    /// Runs one call in a new instance. `function` names it in errors; `input` is the size of what
    /// the call passes.
    pub(super) fn call<T>(
        &self,
        pre: &InstancePre<Usage>,
        function: &'static str,
        input: usize,
        call: impl FnOnce(&mut Store<Usage>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        if input > INPUT_LIMIT {
            return Err(Fault::InputTooLarge { function, input });
        }
        let _running = self
            .inner
            .ticker
            .begin()
            .map_err(|source| Fault::Ticker { source })?;
        let mut store = Store::new(&self.inner.engine, Usage::default());
        store.limiter(|usage| usage);
        // The tick under way may be nearly over, so one more than the deadline's own.
        let ticks = DEADLINE.as_millis() / TICK.as_millis() + 1;
        store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX));
        store.set_hostcall_fuel(OUTPUT_LIMIT);
        pre.instantiate(&mut store)
            .and_then(|instance| call(&mut store, &instance))
            .map_err(|error| fault(&error, store.data(), function))
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(STACK_LIMIT)
        // Calls are short: what counts is how quickly an instance comes and goes.
        .memory_init_cow(true)
        .memory_reservation(MEMORY_LIMIT as u64)
        .memory_guard_size(64 << 10)
        .memory_reservation_for_growth(0)
        .guard_before_linear_memory(false)
        .concurrency_support(false)
        // No backtrace is shown to anybody: an error names plugin and function instead.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        // The same input gives the same bytes, on any machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    config
}

/// What a call uses, and which limit it ran into.
#[derive(Default)]
pub struct Usage {
    memory: usize,
    table_entries: usize,
    refused: bool,
}

impl Usage {
    /// Counts growth; whether it may happen.
    fn grow(total: &mut usize, limit: usize, current: usize, desired: usize) -> bool {
        let sum = total.saturating_add(desired.saturating_sub(current));
        let fits = sum <= limit;
        if fits {
            *total = sum;
        }
        fits
    }
}

impl ResourceLimiter for Usage {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = Self::grow(&mut self.memory, MEMORY_LIMIT, current, desired);
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = Self::grow(&mut self.table_entries, TABLE_LIMIT, current, desired);
        self.refused |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        ITEM_LIMIT
    }

    fn tables(&self) -> usize {
        ITEM_LIMIT
    }

    fn memories(&self) -> usize {
        ITEM_LIMIT
    }
}

/// What went wrong in a call, in words of our own.
fn fault(error: &wasmtime::Error, usage: &Usage, function: &'static str) -> Fault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::Deadline { function },
        Some(Trap::StackOverflow) => Fault::Stack { function },
        // A guest whose allocation failed stops by `unreachable`.
        _ if usage.refused => Fault::Memory { function },
        Some(
            Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::InvalidChar
            | Trap::UnalignedPointer,
        ) => Fault::Malformed { function },
        Some(Trap::UnreachableCodeReached) => Fault::Trap {
            function,
            trap: "it panicked".into(),
        },
        Some(trap) => {
            let text = trap.to_string();
            Fault::Trap {
                function,
                trap: text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned(),
            }
        }
        // The engine's own type for this is private.
        None if is_output_limit(error) => Fault::OutputTooLarge { function },
        // Everything else that can go wrong after types were checked is reading the result.
        None => Fault::Malformed { function },
    }
}

fn is_output_limit(error: &wasmtime::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.to_string().contains("too much data is being copied"))
}

/// The first line of the engine's innermost sentence, escaped and cut.
pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    let line = text.lines().next().unwrap_or_default();
    // The validator adds the byte's number, which tells a user nothing.
    let sentence = line.split(" (at offset ").next().unwrap_or(line);
    let sentence = match sentence.split_once(": ") {
        Some((place, rest)) if place.contains(" at offset ") => rest,
        _ => sentence,
    };
    let words: Vec<&str> = sentence.split_whitespace().collect();
    super::validate::shown(words.join(" ").as_bytes())
}
