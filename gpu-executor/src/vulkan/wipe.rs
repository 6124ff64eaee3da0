//! Taking buffers back, with what they held or without.

use super::Shared;
use super::encode::{Op, Span};
use super::memory::{Buffer, Place};
use super::queue::InFlight;
use crate::Error;
use crate::plan::Role;

impl Shared {
    /// Takes a buffer back that no submission uses any more. If the device wipes memory, it is given to others, or to the driver,
    /// when it holds nothing but zeros.
    pub(super) fn release(&self, mut buffer: Buffer) {
        if !self.settings.wipe || !std::mem::replace(&mut buffer.dirty, false) {
            return self.memory.give(&self.gpu, buffer);
        }
        match buffer.place {
            Place::Host => {
                // Not left out by the compiler, to which mapped memory is anybody's.
                if let Ok(bytes) = buffer.bytes() {
                    bytes.fill(0);
                }
                self.memory.give(&self.gpu, buffer);
            }
            Place::Device => self.wipe(buffer),
        }
    }

    /// Has the device fill a buffer with zeros, after which it is given back.
    fn wipe(&self, buffer: Buffer) {
        let submit = || {
            let mut lane = self.lane(Role::Compute)?;
            let whole = Span { buffer: &buffer, offset: 0, bytes: buffer.size };
            match self.record(&mut lane, &[Op::Zero { to: whole }]).and_then(|()| self.submit(&lane)) {
                Ok(until) => Ok((until, lane)),
                Err(error) => {
                    self.queues.keep(lane);
                    Err(error)
                }
            }
        };
        match submit() {
            Ok((until, lane)) => {
                let staging = vec![buffer];
                self.in_flight.lock().push(InFlight { until, lanes: vec![lane], held: Vec::new(), staging });
            }
            Err(error) => {
                if !matches!(error, Error::Lost { .. }) {
                    tracing::error!(%error, "device memory could not be wiped; it goes back to the driver as it is");
                }
                self.memory.destroy(&self.gpu, buffer);
            }
        }
    }
}
