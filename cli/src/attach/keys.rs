//! What the user does: keys and signals.

use super::input::{self, Kept};
use super::{DetachKey, Following, State, screen};
use crate::signal::Signal;
use banger_core::frame::Frame;

/// What is done with what is typed.
#[derive(Debug)]
pub enum Keys {
    /// Standard input is not read.
    Ignored,
    /// It goes to the session, each byte once.
    Kept(Kept),
    /// Each key goes to the program that draws our terminal.
    Typed(DetachKey),
    /// The terminal is raw, and the session gets nothing: these keys leave.
    Watching(DetachKey),
}

impl Following {
    /// Whether to go on.
    pub(super) fn hear_signals(&mut self) -> bool {
        let signals = self.signals.clone();
        for signal in signals.iter().filter_map(|signals| signals.next()) {
            if signal != Signal::Resized {
                return false;
            }
            let Some(size) = screen::size() else { continue };
            self.ask.resize(size);
            if let State::Connected { link, .. } = &mut self.state {
                let frame: Frame = Frame::Resize {
                    columns: size.columns,
                    rows: size.rows,
                };
                link.outgoing.extend(frame.encode());
            }
        }
        true
    }

    /// Reads what was typed; whether to go on.
    pub(super) fn read_keys(&mut self, buffer: &mut [u8]) -> bool {
        let room = match &self.keys {
            Keys::Kept(kept) => kept.room().min(buffer.len()),
            _ => buffer.len(),
        };
        let room = buffer.get_mut(..room).unwrap_or_default();
        let read = match rustix::io::read(rustix::stdio::stdin(), &mut *room) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            // An input that can't be read is as good as at its end.
            Ok(0) | Err(_) => None,
            Ok(length) => room.get(..length),
        };
        match (&mut self.keys, read) {
            (Keys::Ignored, _) => {}
            (Keys::Kept(kept), Some(bytes)) => kept.push(bytes),
            (Keys::Kept(kept), None) => kept.end(),
            // A raw terminal has no end of input: it has gone.
            (Keys::Typed(_) | Keys::Watching(_), None) => self.hung_up = true,
            (Keys::Watching(key), Some(bytes)) => {
                return key
                    .find(bytes)
                    .or(DetachKey::INTERRUPT.find(bytes))
                    .is_none();
            }
            (Keys::Typed(key), Some(bytes)) => {
                let end = key.find(bytes);
                let typed = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                match &mut self.state {
                    _ if typed.is_empty() => {}
                    State::Connected { link, .. } if link.outgoing.len() < input::LIMIT => {
                        link.outgoing.extend(Frame::Stdin(typed).encode());
                    }
                    // Without a connection nobody could say how much of it arrived, and a daemon
                    // that takes nothing has enough: refused, and heard to be.
                    _ => self.pending.push_bell(),
                }
                return end.is_none();
            }
        }
        true
    }

    /// Hands over what the session may be sent now.
    pub(super) fn queue_input(&mut self) {
        if let (State::Connected { link, .. }, Keys::Kept(kept)) = (&mut self.state, &mut self.keys)
            && link.outgoing.is_empty()
            && let Some(frame) = kept.next()
        {
            link.outgoing = frame;
        }
    }
}
