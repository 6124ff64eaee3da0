//! The file that keeps a driver's pipeline cache from one process to the next.
//!
//! A blob given to `vkCreatePipelineCache` is trusted by drivers more than a file deserves, so the file is a container:
//! magic, format version, the identity of device and driver, length and SHA-256 of the blob. The blob's own header, which
//! Vulkan defines, must name the same device. Anything else is rejected and later overwritten.
//!
//! Files are replaced atomically (written beside, then renamed) and readable by their owner only.

use sha2::{Digest, Sha256};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The device and driver that a cache belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// PCI vendor, or a Khronos vendor id.
    pub(crate) vendor: u32,
    /// The vendor's device id.
    pub(crate) device: u32,
    /// The driver's version, in the driver's own encoding.
    pub(crate) driver: u32,
    /// `pipelineCacheUUID`: changes when the driver can no longer read its old caches.
    pub(crate) uuid: [u8; 16],
}

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    /// It is too short, or does not begin as such a file does.
    #[error("not a pipeline cache file")]
    NotACache,
    /// It was written by another version of this library.
    #[error("of another format version")]
    Version,
    /// It belongs to another device or driver.
    #[error("of another device or driver")]
    Foreign,
    /// Its checksum or its length is wrong.
    #[error("corrupt")]
    Corrupt,
}

const MAGIC: &[u8; 8] = b"BLS12PLC";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 28 + 8 + 32;
/// `VkPipelineCacheHeaderVersionOne`: length, version, vendor, device, UUID.
const VULKAN_HEADER: usize = 32;

impl Identity {
    fn bytes(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&self.vendor.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.device.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.driver.to_le_bytes());
        bytes[12..].copy_from_slice(&self.uuid);
        bytes
    }

    /// The name of this device and driver's file.
    pub(crate) fn file_name(&self) -> String {
        format!("pipelines-{}.bin", self.text())
    }

    fn text(&self) -> String {
        format!("{:08x}-{:08x}-{:08x}-{}", self.vendor, self.device, self.driver, hex(&self.uuid))
    }

    fn heads(&self, blob: &[u8]) -> bool {
        let word = |at: usize| blob.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        blob.len() >= VULKAN_HEADER
            && word(0).is_some_and(|length| length as usize >= VULKAN_HEADER && length as usize <= blob.len())
            && word(4) == Some(1)
            && word(8) == Some(self.vendor)
            && word(12) == Some(self.device)
            && blob[16..32] == self.uuid
    }
}

/// The bytes of a file that holds `blob`.
pub(crate) fn encode(identity: &Identity, blob: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + blob.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&identity.bytes());
    file.extend_from_slice(&(blob.len() as u64).to_le_bytes());
    file.extend_from_slice(&Sha256::digest(blob));
    file.extend_from_slice(blob);
    file
}

/// The blob in a file's bytes.
///
/// # Errors
/// Why the file must not be used.
pub(crate) fn decode<'a>(identity: &Identity, file: &'a [u8]) -> Result<&'a [u8], Rejected> {
    let header = file.get(..HEADER).ok_or(Rejected::NotACache)?;
    let blob = &file[HEADER..];
    if header[..8] != *MAGIC {
        return Err(Rejected::NotACache);
    }
    if header[8..12] != VERSION.to_le_bytes() {
        return Err(Rejected::Version);
    }
    if header[12..40] != identity.bytes() {
        return Err(Rejected::Foreign);
    }
    if header[40..48] != (blob.len() as u64).to_le_bytes() || header[48..80] != *Sha256::digest(blob) {
        return Err(Rejected::Corrupt);
    }
    if identity.heads(blob) { Ok(blob) } else { Err(Rejected::Foreign) }
}

/// One device and driver's cache file.
#[derive(Debug)]
pub(crate) struct CacheFile {
    pub(crate) path: PathBuf,
    identity: Identity,
}

impl CacheFile {
    /// The file in `directory`, which is made if need be and must be writable.
    pub(crate) fn open(directory: &Path, identity: Identity) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Fails where nothing can be written; gone again at once.
        tempfile::tempfile_in(directory)?;
        Ok(Self { path: directory.join(identity.file_name()), identity })
    }

    /// What was kept, if there is anything that can be used; says so when there is something that can not.
    pub(crate) fn load(&self) -> Option<Vec<u8>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "pipeline cache not readable; starting an empty one");
                return None;
            }
        };
        match decode(&self.identity, &bytes) {
            Ok(blob) => Some(blob.to_vec()),
            Err(reason) => {
                tracing::warn!(path = %self.path.display(), %reason, "pipeline cache ignored; it will be replaced");
                None
            }
        }
    }

    /// Replaces what was kept.
    pub(crate) fn store(&self, blob: &[u8]) -> io::Result<()> {
        replace(&self.path, &encode(&self.identity, blob))
    }

    /// Another file for the same device and driver.
    pub(crate) fn note(&self, name: &str) -> NoteFile {
        NoteFile { path: self.path.with_file_name(format!("{name}-{}.txt", self.identity.text())), identity: self.identity }
    }
}

/// Replaces a file as a whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Mode 0600 from the start: that is how tempfile makes its files.
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A text kept for one device and driver. Its first line is a SHA-256, of who it is for and what follows.
#[derive(Debug)]
pub(crate) struct NoteFile {
    path: PathBuf,
    identity: Identity,
}

impl NoteFile {
    fn seal(&self, text: &str) -> String {
        let hash = Sha256::new().chain_update(self.identity.bytes()).chain_update(text).finalize();
        format!("sha256 {}\n", hex(&hash))
    }

    /// What was kept, if it is as it was written; says so if it is not.
    pub(crate) fn load(&self) -> Option<String> {
        let kept = match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "not readable");
                return None;
            }
        };
        let text = kept.split_once('\n').map_or("", |(_, text)| text);
        if kept.strip_suffix(text) != Some(&self.seal(text)) {
            tracing::warn!(path = %self.path.display(), "damaged, or of another device or driver; it will be replaced");
            return None;
        }
        Some(text.to_owned())
    }

    /// Replaces what was kept.
    pub(crate) fn store(&self, text: &str) -> io::Result<()> {
        replace(&self.path, (self.seal(text) + text).as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity { vendor: 0x10de, device: 0x2335, driver: 580, uuid: *b"0123456789abcdef" };

    /// A blob as a driver would make it: Vulkan's header, then anything.
    fn blob(identity: &Identity, body: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        for word in [32, 1, identity.vendor, identity.device] {
            blob.extend_from_slice(&word.to_le_bytes());
        }
        blob.extend_from_slice(&identity.uuid);
        blob.extend_from_slice(body);
        blob
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let file = CacheFile::open(&directory.path().join("a/b"), IDENTITY).unwrap();
        assert_eq!(file.load(), None);
        for body in [&b"first"[..], b"second, longer", b""] {
            file.store(&blob(&IDENTITY, body)).unwrap();
            assert_eq!(file.load().unwrap(), blob(&IDENTITY, body));
        }
        let names: Vec<_> = std::fs::read_dir(directory.path().join("a/b")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing but the cache is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = CacheFile::open(directory.path(), IDENTITY).unwrap();
        file.store(&blob(&IDENTITY, b"secret")).unwrap();
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_other_device_or_driver_is_foreign() {
        let bytes = encode(&IDENTITY, &blob(&IDENTITY, b"x"));
        for other in [
            Identity { vendor: 0x1002, ..IDENTITY },
            Identity { device: 1, ..IDENTITY },
            Identity { driver: 581, ..IDENTITY },
            Identity { uuid: [0; 16], ..IDENTITY },
        ] {
            assert_eq!(decode(&other, &bytes), Err(Rejected::Foreign));
            // A container of this device around a blob of another.
            let wrapped = encode(&IDENTITY, &blob(&other, b"x"));
            let same_header = blob(&other, b"x") == blob(&IDENTITY, b"x");
            assert_eq!(decode(&IDENTITY, &wrapped).is_ok(), same_header);
        }
    }

    #[test]
    fn other_files_are_not_caches() {
        assert_eq!(decode(&IDENTITY, b""), Err(Rejected::NotACache));
        assert_eq!(decode(&IDENTITY, &[0; 200]), Err(Rejected::NotACache));
        let mut later = encode(&IDENTITY, &blob(&IDENTITY, b"x"));
        later[8] = 2;
        assert_eq!(decode(&IDENTITY, &later), Err(Rejected::Version));
        assert_eq!(decode(&IDENTITY, &encode(&IDENTITY, b"short")), Err(Rejected::Foreign));
    }

    /// Keeps the text of warnings.
    #[derive(Clone, Default)]
    struct Warnings(std::sync::Arc<parking_lot::Mutex<String>>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn event(&self, event: &tracing::Event<'_>) {
            struct Text<'a>(&'a mut String);
            impl tracing::field::Visit for Text<'_> {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0.push_str(&format!("{field}={value:?} "));
                }
            }
            event.record(&mut Text(&mut self.0.lock()));
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_bad_file_is_ignored_with_a_warning_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = CacheFile::open(directory.path(), IDENTITY).unwrap();
        let mut foreign = encode(&IDENTITY, &blob(&IDENTITY, b"x"));
        foreign[12] ^= 1;
        for (bytes, reason) in [(&b"garbage"[..], "not a pipeline cache"), (&foreign, "another device or driver")] {
            std::fs::write(&file.path, bytes).unwrap();
            let warnings = Warnings::default();
            tracing::subscriber::with_default(warnings.clone(), || assert_eq!(file.load(), None));
            let text = warnings.0.lock().clone();
            assert!(text.contains(reason) && text.contains("replaced"), "{text}");
        }
        file.store(&blob(&IDENTITY, b"good")).unwrap();
        assert_eq!(file.load().unwrap(), blob(&IDENTITY, b"good"));
    }

    #[test]
    fn a_note_is_what_was_written_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let note = CacheFile::open(directory.path(), IDENTITY).unwrap().note("speeds");
        assert_eq!(note.load(), None);
        for text in ["", "one", "one\ntwo\n\nthree"] {
            note.store(text).unwrap();
            assert_eq!(note.load().as_deref(), Some(text));
            let bytes = std::fs::read(&note.path).unwrap();
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                std::fs::write(&note.path, &flipped).unwrap();
                assert_eq!(note.load(), None, "byte {at}");
                std::fs::write(&note.path, &bytes[..at]).unwrap();
                assert_eq!(note.load(), None, "cut at {at}");
            }
            std::fs::write(&note.path, &bytes).unwrap();
            let elsewhere = NoteFile { identity: Identity { driver: 1, ..IDENTITY }, path: note.path.clone() };
            assert_eq!(elsewhere.load(), None);
        }
        note.store("mended").unwrap();
        assert_eq!(note.load().as_deref(), Some("mended"));
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let occupied = directory.path().join("file");
        std::fs::write(&occupied, b"").unwrap();
        assert!(CacheFile::open(&occupied, IDENTITY).is_err());
        assert!(CacheFile::open(&occupied.join("below"), IDENTITY).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_and_any_cut_is_noticed(body in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let bytes = encode(&IDENTITY, &blob(&IDENTITY, &body));
            let at = at.index(bytes.len());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(decode(&IDENTITY, &flipped).is_err());
            prop_assert!(decode(&IDENTITY, &bytes[..at]).is_err());
            prop_assert!(decode(&IDENTITY, &bytes).is_ok());
        }
    }
}
