//! Who computes a call: the CPU or the device, and on the device in which memory, in workgroups and chunks of which size.
//!
//! A [`model`] predicts the time of each from what was measured on this machine, once, by [`measure`]; where nothing was, from
//! [`guesses`].

mod decision;
mod guesses;
mod measure;
mod model;
#[cfg(test)]
mod tests;

pub use decision::{Candidate, Decision, Evidence, Place, Reason, Setting};
pub use measure::Thoroughness;

use crate::backend::{Backend, Engine};
use crate::call::Prepared;
use crate::on_device::Vulkan;
use crate::options::{Calibrate, Placement};
use crate::{Error, Field, Form, Operation, Verify};
use gpu_executor::Validation;
use model::{Asked, Key, Measurements, Model, Query, is_small, undecided};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// What a backend knows about time.
#[derive(Debug, Default)]
pub(crate) struct Chooser {
    /// Held for moments only, never while something is measured: rayon workers come by.
    state: RwLock<State>,
    calibrations: AtomicU64,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Untried,
    /// Read from disk or guessed, for who cannot measure or does not want to wait for who does. If `measuring`, nobody else
    /// needs to.
    For {
        model: Arc<Model>,
        measuring: bool,
    },
    Known(Arc<Model>),
}

impl Chooser {
    pub(crate) fn calibrations(&self) -> u64 {
        self.calibrations.load(Relaxed)
    }

    /// The model to decide by; what there is to be measured is, by the first caller who can.
    fn model(&self, backend: &Backend, vulkan: &Vulkan) -> Arc<Model> {
        // A rayon worker measures badly: he copies alone, and takes up others' work meanwhile.
        let worker = rayon::current_thread_index().is_some();
        match &*self.state.read() {
            State::Known(model) => return model.clone(),
            State::For { model, measuring } if worker || *measuring => return model.clone(),
            _ => {}
        }
        let settings = backend.settings();
        let kept = match settings.calibrate {
            Calibrate::Auto => kept(vulkan),
            Calibrate::Off | Calibrate::Again => None,
        };
        let for_now = Arc::new(backend.model_of(vulkan, kept.as_ref().unwrap_or(&nothing(vulkan))));
        let measures = match settings.calibrate {
            Calibrate::Off => false,
            Calibrate::Again => true,
            // What is not kept would be measured by every process.
            Calibrate::Auto => kept.is_none() && vulkan.device().cache_directory().is_some() && backend.is_ordinary(),
        };
        {
            let mut state = self.state.write();
            match &*state {
                State::Known(model) => return model.clone(),
                State::For { model, measuring: true } => return model.clone(),
                _ if !measures => {
                    *state = State::Known(for_now.clone());
                    return for_now;
                }
                _ => *state = State::For { model: for_now.clone(), measuring: !worker },
            }
        }
        if worker {
            return for_now;
        }
        match backend.measure(vulkan, Thoroughness::Quick, &mut |_, _| {}) {
            Ok(model) => model,
            Err(error) => {
                tracing::warn!(%error, "calibration failed: deciding by guesses");
                *self.state.write() = State::Known(for_now.clone());
                for_now
            }
        }
    }
}

/// The name of the notes that calibrations are kept in: what else times depend on is part of it.
fn name(vulkan: &Vulkan) -> String {
    let tiled = if vulkan.tiled { "-tiled" } else { "" };
    // Machines may share a cache directory.
    let words = processor().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let processor: String = words.map(|word| format!("-{word}")).collect::<String>().chars().take(80).collect();
    format!("calibration-{}{tiled}-{}-threads{processor}", vulkan.width.name(), rayon::current_num_threads())
}

/// The kind of CPU; nothing, if the system does not tell.
pub(crate) fn processor() -> &'static str {
    static PROCESSOR: OnceLock<String> = OnceLock::new();
    PROCESSOR.get_or_init(|| {
        // Up to the first of its CPUs: some have hundreds.
        let told = std::fs::File::open("/proc/cpuinfo").map(std::io::BufReader::new);
        let name = told.ok().and_then(|told| {
            let mut lines = std::io::BufRead::lines(told).map_while(Result::ok);
            lines.find(|line| line.starts_with("model name"))
        });
        let name = name.as_deref().and_then(|line| line.strip_prefix("model name")).unwrap_or_default();
        name.trim_matches([' ', '\t', ':']).to_owned()
    })
}

fn kept(vulkan: &Vulkan) -> Option<Measurements> {
    let text = vulkan.device().recall(&name(vulkan))?;
    let kept = Measurements::read(&text, rayon::current_num_threads(), vulkan.device().most_invocations());
    if kept.is_none() {
        tracing::info!("the calibration on disk is of another version; it will be replaced");
    }
    kept
}

fn nothing(vulkan: &Vulkan) -> Measurements {
    Measurements::new(vulkan.device().info().to_string(), rayon::current_num_threads())
}

/// With the threads of the rayon pool at hand. To ask for them makes the global pool, so who needs no prediction does not.
fn with_threads(query: Query) -> Query {
    Query { threads: rayon::current_num_threads(), ..query }
}

impl Backend {
    /// Where a call would be computed, why there, and how long it is predicted to take wherever it could be. A power is taken to
    /// have an exponent as long as the modulus. Decides as a call of this thread would: the first of a backend may calibrate
    /// (see [`Calibrate`]).
    ///
    /// ```
    /// use bls12_field_gpu::{Field, Form, Operation};
    /// let decision = bls12_field_gpu::backend()?.explain(Operation::Add, Field::Fq, Form::Canonical, 100);
    /// println!("{decision}");
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn explain(&self, operation: Operation, field: Field, form: Form, length: usize) -> Decision {
        self.explain_with(self.verify(), operation, field, form, length)
    }

    /// As [`Backend::explain`], of a backend that checks as much as `verify` says.
    ///
    /// ```
    /// use bls12_field_gpu::{Field, Form, Operation, Verify};
    /// let backend = bls12_field_gpu::backend()?;
    /// println!("{}", backend.explain_with(Verify::Off, Operation::Add, Field::Fq, Form::Canonical, 100));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn explain_with(&self, verify: Verify, operation: Operation, field: Field, form: Form, length: usize) -> Decision {
        let query = Query { verify, ..self.query(operation, field, form, length, None) };
        let mut undecided = undecided(&query);
        let Some(vulkan) = self.vulkan() else {
            let reason = match self.engine() {
                Engine::Cpu { reason } => reason.clone(),
                Engine::Vulkan { .. } => String::new(),
            };
            return Decision { reason: Reason::NoDevice(reason), ..undecided };
        };
        undecided.multiplication = Some(vulkan.formulations.choose(operation.row().kernel, field));
        match self.evident(vulkan, &query) {
            Some((place, reason)) => Decision { place, reason, ..undecided },
            None => {
                let (model, query, multiplication) =
                    (self.chooser().model(self, vulkan), with_threads(query), undecided.multiplication);
                let soonest = Decision { multiplication, ..model.explain(&query) };
                match self.not_by_the_cpu(&model, &query) {
                    Some(place) => Decision { place, reason: Reason::Asked, ..soonest },
                    None => soonest,
                }
            }
        }
    }

    /// Measures how long calls take on the CPU and on the device, decides by that from now on, and keeps it on disk for the next
    /// process (unless [`Options::cache`](crate::Options::cache) says otherwise, or what is kept was measured more thoroughly). Called by a worker
    /// of rayon it measures no calls that the device and the CPU share. Tells `progress` how much of it is done, from 0
    /// to 1, and what is measured next. Does nothing without a device. Other calls at the same time make the measurements wrong.
    ///
    /// ```no_run
    /// use bls12_field_gpu::Thoroughness;
    /// let backend = bls12_field_gpu::backend()?;
    /// backend.calibrate(Thoroughness::Quick, &mut |done, what| println!("{:3.0}% {what}", 100.0 * done))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] and [`Error::SelfTestFailed`]: what was known before stays.
    pub fn calibrate(&self, thoroughness: Thoroughness, progress: &mut dyn FnMut(f64, &str)) -> Result<(), Error> {
        self.vulkan().map_or(Ok(()), |vulkan| self.measure(vulkan, thoroughness, progress).map(drop))
    }

    /// Where a call is computed.
    pub(crate) fn place(&self, vulkan: &Vulkan, prepared: &Prepared) -> Place {
        let (operation, field) = (prepared.row.operation, prepared.field);
        let bits = prepared.exponent_bits();
        let query = self.query(operation, field, prepared.form, prepared.length, Some(bits));
        match self.evident(vulkan, &query) {
            Some((place, _)) => place,
            None => {
                let (model, query) = (self.chooser().model(self, vulkan), with_threads(query));
                self.not_by_the_cpu(&model, &query).unwrap_or_else(|| model.place(&query))
            }
        }
    }

    /// Who computes a call that the CPU alone must not, if that was asked for.
    fn not_by_the_cpu(&self, model: &Model, query: &Query) -> Option<Place> {
        if self.settings().placement == Placement::Both { model.on_the_device(query) } else { None }
    }

    fn query(&self, operation: Operation, field: Field, form: Form, length: usize, exponent_bits: Option<u64>) -> Query {
        let (verify, threads, worker) = (self.verify(), 1, rayon::current_thread_index().is_some());
        Query { operation, field, form, length, verify, exponent_bits, threads, worker }
    }

    /// What needs no prediction.
    fn evident(&self, vulkan: &Vulkan, query: &Query) -> Option<(Place, Reason)> {
        let executor = &self.settings().executor;
        let workgroup_size = vulkan.device().workgroup_size();
        let device =
            Place::Device(Setting { memory: executor.memory, workgroup_size, chunk_elements: None, cpu_elements: 0 });
        let serial = guesses::serial(Key::new(query.operation, query.field, query.form)).0;
        if self.settings().placement == Placement::Device {
            Some((device, Reason::Asked))
        } else if self.is_lost() {
            Some((device, Reason::Lost))
        } else if is_small(query, serial) {
            Some(match self.settings().placement {
                Placement::Both => (device, Reason::Asked),
                _ => (Place::Cpu, Reason::Small),
            })
        } else {
            None
        }
    }

    /// Whether times are what they are for most backends.
    pub(crate) fn is_ordinary(&self) -> bool {
        let executor = &self.settings().executor;
        executor.validation == Validation::Off
            && self.settings().formulation.is_none()
            && !executor.wipe
            && executor.chunk_elements.is_none()
            && executor.device_memory.is_none()
    }

    fn model_of(&self, vulkan: &Vulkan, measurements: &Measurements) -> Model {
        let executor = &self.settings().executor;
        let (kind, own) = (vulkan.device().info().kind, vulkan.device().workgroup_size());
        let (memory, workgroup_size, chunk_elements) = (executor.memory, executor.workgroup_size, executor.chunk_elements);
        let asked = Asked { memory, workgroup_size, chunk_elements };
        Model::new(measurements, |key| guesses::entry(key, kind, rayon::current_num_threads(), own), asked)
    }

    fn measure(
        &self,
        vulkan: &Vulkan,
        thoroughness: Thoroughness,
        progress: &mut dyn FnMut(f64, &str),
    ) -> Result<Arc<Model>, Error> {
        let begin = std::time::Instant::now();
        let thoroughness = match thoroughness {
            Thoroughness::Quick => thoroughness,
            Thoroughness::Thorough(budget) => {
                vulkan.choose_formulations(self, budget / 2, progress)?;
                Thoroughness::Thorough(budget.saturating_sub(begin.elapsed()))
            }
        };
        let measurements = measure::measure(self, vulkan, thoroughness, progress)?;
        self.chooser().calibrations.fetch_add(1, Relaxed);
        let model = Arc::new(self.model_of(vulkan, &measurements));
        let (operations, took) = (model.measured(), begin.elapsed());
        tracing::info!(operations, ?took, device = %vulkan.device().info(), "calibrated");
        let better = !measurements.thorough && kept(vulkan).is_some_and(|kept| kept.thorough);
        if self.is_ordinary() && !measurements.entries.is_empty() && !better {
            let stored = measurements
                .text()
                .map_err(|error| error.to_string())
                .and_then(|text| vulkan.device().keep(&name(vulkan), &text).map_err(|error| error.to_string()));
            if let Err(error) = stored {
                tracing::warn!(error, "calibration not kept: the next process measures again");
            }
        }
        *self.chooser().state.write() = State::Known(model.clone());
        Ok(model)
    }
}
