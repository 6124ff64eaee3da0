//! Submitted recordings, and what they download.

use crate::Backend;
use crate::future::Elsewhere;
use crate::inversion;
use crate::memory::{zeroed, zeroed_elements};
use crate::step::{Fetch, Item, Step};
use crate::verification::Verification;
use crate::{Error, Field};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::LimbField as _;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A submitted recording. Dropping it changes nothing: the recording is done all the same, but what it downloads is lost, and
/// one that was to be verified is not.
///
/// It can be polled ([`Ticket::is_done`]), waited for ([`Ticket::wait`], [`Ticket::wait_timeout`]), and awaited: it is a [`Future`]
/// of what [`Ticket::wait`] returns, for any executor. One thread of the device sleeps for all tickets that are awaited. What is
/// to be verified, or downloads more than 64 KiB, is verified and copied on threads of the device; else the poll that finds
/// it done copies it. A future that is dropped is a ticket that is dropped. Polled again after it was ready, it has no downloads.
///
/// ```
/// # use ark_bls12_381::Fr;
/// async fn cube(backend: &bls12_field_gpu::Backend, a: &bls12_field_gpu::Vector<Fr>) -> Result<Vec<Fr>, bls12_field_gpu::Error> {
///     let mut recording = backend.record();
///     let cubes = recording.pow(a, &[3])?;
///     let cubes = recording.download(&cubes)?;
///     recording.submit_verified()?.await?.take(&cubes)
/// }
/// ```
pub struct Ticket {
    pub(crate) backend: Backend,
    /// `None` if the recording was done when it was submitted.
    pub(crate) device: Option<gpu_executor::Ticket>,
    fetches: Vec<Fetch>,
    /// What was fetched, if the recording was done when it was submitted.
    landed: Vec<Landed>,
    verification: Option<(Verification, Vec<Step>)>,
    /// Where the result will be, if another thread has been given the rest.
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
}

/// A download that was recorded: the key to its values among the [`Downloads`] of the submitted recording.
pub struct Download<T> {
    key: Arc<()>,
    values: PhantomData<fn() -> T>,
}

/// What a recording downloaded.
#[derive(Default)]
pub struct Downloads {
    landed: Vec<(Arc<()>, Landed)>,
}

/// Values of a download. Not public: its module is not.
#[derive(Debug)]
pub enum Landed {
    Fq(Vec<Fq>),
    Fr(Vec<Fr>),
    Flags(Vec<u32>),
}

/// What downloads give: elements of Fq and Fr, [`bool`] for the flags of a mask, and [`usize`] for counts.
pub trait Value: sealed::Landing {}

impl<T: sealed::Landing> Value for T {}

mod sealed {
    /// How to get at the values of a download.
    pub trait Landing: Sized {
        fn extract(landed: super::Landed) -> Option<Vec<Self>>;
    }
}

impl sealed::Landing for Fq {
    fn extract(landed: Landed) -> Option<Vec<Self>> {
        if let Landed::Fq(elements) = landed { Some(elements) } else { None }
    }
}

impl sealed::Landing for Fr {
    fn extract(landed: Landed) -> Option<Vec<Self>> {
        if let Landed::Fr(elements) = landed { Some(elements) } else { None }
    }
}

impl sealed::Landing for bool {
    fn extract(landed: Landed) -> Option<Vec<Self>> {
        if let Landed::Flags(flags) = landed { Some(flags.into_iter().map(|flag| flag != 0).collect()) } else { None }
    }
}

impl sealed::Landing for usize {
    fn extract(landed: Landed) -> Option<Vec<Self>> {
        if let Landed::Flags(counts) = landed {
            Some(counts.into_iter().map(|count| count as usize).collect())
        } else {
            None
        }
    }
}

impl Landed {
    /// Room for the values of a download.
    pub(crate) fn new(fetch: &Fetch) -> Result<Self, Error> {
        Ok(match fetch.item {
            Item::Element(Field::Fq) => Landed::Fq(zeroed_elements(fetch.length)?),
            Item::Element(Field::Fr) => Landed::Fr(zeroed_elements(fetch.length)?),
            Item::Flag | Item::Index => Landed::Flags(zeroed(fetch.length)?),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Landed::Fq(elements) => bytemuck::cast_slice(Fq::limbs(elements)),
            Landed::Fr(elements) => bytemuck::cast_slice(Fr::limbs(elements)),
            Landed::Flags(flags) => bytemuck::cast_slice(flags),
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Landed::Fq(elements) => bytemuck::cast_slice_mut(Fq::limbs_mut(elements)),
            Landed::Fr(elements) => bytemuck::cast_slice_mut(Fr::limbs_mut(elements)),
            Landed::Flags(flags) => bytemuck::cast_slice_mut(flags),
        }
    }
}

impl Ticket {
    /// Of a recording that is done.
    pub(crate) fn done(backend: Backend, fetches: Vec<Fetch>, landed: Vec<Landed>) -> Self {
        Self { backend, device: None, fetches, landed, verification: None, elsewhere: None }
    }

    /// Of a recording that the device was given, with its downloads in the order in which they were recorded; if it is to be
    /// verified, between those of its inputs and those of its outputs.
    pub(crate) fn submitted(
        backend: Backend,
        device: gpu_executor::Ticket,
        fetches: Vec<Fetch>,
        verification: Option<(Verification, Vec<Step>)>,
    ) -> Self {
        Self { backend, device: Some(device), fetches, landed: Vec::new(), verification, elsewhere: None }
    }

    /// Whether the recording has been done. Verification comes later, in [`Ticket::wait`].
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().submit()?.is_done()?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_done(&self) -> Result<bool, Error> {
        Ok(self.device.as_ref().map_or(Ok(true), gpu_executor::Ticket::is_done)?)
    }

    /// Waits until the recording has been done: spins briefly, then sleeps. If it is to be verified, verifies it, on all cores.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost or takes longer than its timeout, or if there is no host memory for what is downloaded
    /// and verified; [`Error::VerificationFailed`];
    /// [`Error::ZeroInverse`] if a zero was to be inverted where it is refused ([`Zeros::Refuse`](crate::Zeros::Refuse)): what was
    /// recorded has been done all the same.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// backend.record().submit()?.wait()?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn wait(self) -> Result<Downloads, Error> {
        let Self { backend, device, fetches, mut landed, verification, elsewhere } = self;
        if let Some(elsewhere) = elsewhere {
            return elsewhere.wait();
        }
        if let Some(device) = device {
            landed = fetches.iter().map(Landed::new).collect::<Result<_, _>>()?;
            let mut fetched =
                verification.as_ref().map(|(verification, steps)| verification.room(steps)).transpose()?.unwrap_or_default();
            #[cfg(feature = "test-faults")]
            let inputs_count = fetched.inputs.len();
            let steps = verification.as_ref().map_or(&[][..], |(_, steps)| steps);
            let mut targets = fetched.targets(steps, &mut landed);
            device.finish(&mut targets)?;
            #[cfg(feature = "test-faults")]
            if let Some(crate::Fault::FlipBit(bit)) = backend.settings().fault {
                flip(&mut targets[inputs_count..], bit);
            }
            drop(targets);
            if let Some((verification, steps)) = verification {
                verification.check(&backend, &steps, &fetched, &landed)?;
            }
        }
        let zero = |(fetch, landed): (&Fetch, &Landed)| match landed {
            Landed::Flags(words) if fetch.refuses => words.first().copied().and_then(inversion::first_zero),
            _ => None,
        };
        if let Some(index) = fetches.iter().zip(&landed).find_map(zero) {
            return Err(Error::ZeroInverse { index });
        }
        let downloads = fetches.into_iter().zip(landed).filter(|(fetch, _)| !fetch.refuses);
        Ok(Downloads { landed: downloads.map(|(fetch, landed)| (fetch.key, landed)).collect() })
    }

    /// Waits until the recording has been done, at most for `timeout`; whether it has.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().submit()?.wait_timeout(std::time::Duration::from_secs(1))?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        Ok(self.device.as_ref().map_or(Ok(true), |ticket| ticket.wait_timeout(timeout))?)
    }
}

impl Ticket {
    /// Everything that is left to do when the device is done, if that is too much for a poll. The ticket itself is then that of
    /// an empty recording.
    pub(crate) fn take_rest(&mut self) -> (Ticket, bool) {
        let bytes = self.fetches.iter().map(|fetch| fetch.from.bytes()).sum::<u64>();
        let much = bytes > AT_ONCE || self.verification.is_some();
        let rest = Ticket {
            backend: self.backend.clone(),
            device: self.device.take(),
            fetches: std::mem::take(&mut self.fetches),
            landed: std::mem::take(&mut self.landed),
            verification: self.verification.take(),
            elsewhere: None,
        };
        (rest, much)
    }
}

/// The most bytes that a poll copies itself: some ten microseconds.
const AT_ONCE: u64 = 64 << 10;

impl<T> Download<T> {
    pub(crate) fn new(key: Arc<()>) -> Self {
        Self { key, values: PhantomData }
    }
}

impl Downloads {
    /// Takes the values of a download: what the vector or the mask held at that point of the recording.
    ///
    /// # Errors
    /// [`Error::NoSuchDownload`] if it was not recorded in this recording, or has been taken.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let before = recording.download(&vector)?;
    /// recording.square_into(&vector, &vector)?;
    /// let after = recording.download(&vector)?;
    /// let mut downloads = recording.submit()?.wait()?;
    /// assert_eq!(downloads.take(&before)?, [Fr::from(3u64)]);
    /// assert_eq!(downloads.take(&after)?, [Fr::from(9u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn take<T: Value>(&mut self, download: &Download<T>) -> Result<Vec<T>, Error> {
        let position = self.landed.iter().position(|(key, _)| Arc::ptr_eq(key, &download.key));
        let landed = position.map(|position| self.landed.swap_remove(position).1);
        landed.and_then(T::extract).ok_or(Error::NoSuchDownload)
    }

    /// The number of downloads that have not been taken.
    ///
    /// ```
    /// let downloads = bls12_field_gpu::backend()?.record().submit()?.wait()?;
    /// assert_eq!(downloads.len(), 0);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.landed.len()
    }

    /// Whether there are no downloads, or all have been taken.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.record().submit()?.wait()?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.landed.is_empty()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ticket({} downloads{})",
            self.fetches.len(),
            if self.verification.is_some() { ", to be verified" } else { "" }
        )
    }
}

impl<T> fmt::Debug for Download<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Download")
    }
}

impl<T> Clone for Download<T> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone())
    }
}

impl fmt::Debug for Downloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Downloads({})", self.len())
    }
}

/// Flips a bit of what a device returned, counted over all of it.
#[cfg(feature = "test-faults")]
fn flip(returned: &mut [&mut [u8]], bit: u64) {
    let bytes: usize = returned.iter().map(|bytes| bytes.len()).sum();
    let byte = (bit / 8 % bytes.max(1) as u64) as usize;
    if let Some(byte) = returned.iter_mut().flat_map(|bytes| bytes.iter_mut()).nth(byte) {
        *byte ^= 1 << (bit % 8);
    }
}
