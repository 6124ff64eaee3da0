//! Taking buffers back, with what they held or without.

use super::Shared;
use super::encode::{Op, Span};
use super::memory::{Buffer, Place};
use super::queue::InFlight;
use crate::Error;
use crate::plan::Role;

impl Shared {
    /// Takes buffers back that no submission uses any more. If the device wipes memory, they are given to others, or to the driver,
    /// when they hold nothing but zeros.
    pub(super) fn release(&self, buffers: impl IntoIterator<Item = Buffer>) {
        if !self.settings.wipe {
            return self.memory.give(&self.gpu, buffers);
        }
        for mut buffer in buffers {
            match (std::mem::replace(&mut buffer.dirty, false), buffer.place) {
                (true, Place::Device) => self.wipe(buffer),
                (dirty, _) => {
                    // Not left out by the compiler, to which mapped memory is anybody's.
                    if dirty && let Ok(bytes) = buffer.bytes() {
                        bytes.fill(0);
                    }
                    self.memory.give(&self.gpu, [buffer]);
                }
            }
        }
    }

    /// Has the device fill a buffer with zeros, after which it is given back.
    fn wipe(&self, buffer: Buffer) {
        let submit = || {
            let whole = Span::new(&buffer, 0, buffer.size);
            let lane = self.recorded(Role::Compute, &[Op::Zero { to: whole }])?;
            self.submitted(lane, &[])
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

#[cfg(feature = "test-faults")]
impl super::Device {
    /// How many buffers are kept for reuse, of device memory and of host memory, and how many of their bytes are not zero; when all
    /// that was submitted has finished and what came of it has been taken back.
    ///
    /// # Errors
    /// [`Error::Lost`], or what the driver answered.
    pub fn residue(&self) -> Result<([usize; 2], u64), Error> {
        let shared = &self.shared;
        loop {
            // Taking back may submit.
            shared.reap();
            let pending = shared.in_flight.lock().first().map(|submission| submission.until);
            match pending {
                Some(until) => shared.wait(until)?,
                None => break,
            }
        }
        let (mut buffers, mut bytes) = ([0, 0], 0);
        for mut buffer in shared.memory.take_idle() {
            buffers[buffer.place as usize] += 1;
            let counted = shared.count_bytes(&mut buffer);
            // As it was, not wiped.
            shared.memory.give(&shared.gpu, [buffer]);
            bytes += counted?;
        }
        Ok((buffers, bytes))
    }
}

#[cfg(feature = "test-faults")]
impl Shared {
    /// How many bytes of an idle buffer are not zero.
    fn count_bytes(&self, buffer: &mut Buffer) -> Result<u64, Error> {
        let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte != 0).count() as u64;
        if buffer.place == Place::Host {
            return Ok(count(buffer.bytes()?));
        }
        let mut copy = self.memory.take(&self.gpu, &self.counters, Place::Host, buffer.size)?;
        let [from, to] = [&*buffer, &copy].map(|buffer| Span::new(buffer, 0, buffer.size));
        let lane = self.recorded(Role::Compute, &[Op::Copy { from, to }, Op::ReadBack { of: to }])?;
        let (until, lane) = self.submitted(lane, &[])?;
        self.wait(until)?;
        self.queues.keep(lane);
        let counted = count(copy.bytes()?);
        copy.bytes()?.fill(0);
        self.memory.destroy(&self.gpu, copy);
        Ok(counted)
    }
}
