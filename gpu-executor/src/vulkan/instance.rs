use super::driver_error;
use crate::{Error, Validation};
use ash::vk;
use parking_lot::Mutex;
use std::ffi::{CStr, c_void};
use std::sync::Arc;

/// Messages of the validation layer, from the instance's making to its destruction. A clone sees the same messages, also after
/// the device is gone: that is when the layer reports leaks.
#[derive(Clone, Debug, Default)]
pub struct ValidationLog(Arc<Mutex<Vec<String>>>);

impl ValidationLog {
    /// All messages so far: warnings and errors.
    pub fn messages(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// The Vulkan instance and its debug messenger.
pub(crate) struct Instance {
    pub(crate) raw: ash::Instance,
    pub(crate) log: ValidationLog,
    /// The version of Vulkan asked for.
    pub(crate) version: u32,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    // Declared last: the loader must outlive everything made with it.
    _entry: ash::Entry,
}

/// An instance that nothing uses and that is never destroyed, so that drivers stay loaded. Each loading of NVIDIA's takes static
/// thread-local storage that the C library does not get back: the thirty-first finds none and fails. Nor is loading quick: of
/// 130 ms for an instance and a device on an H200 it is 65.
static LOADED: Mutex<Option<(ash::Instance, ash::Entry)>> = Mutex::new(None);

const VALIDATION_LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

impl Instance {
    pub(crate) fn new(validation: Validation) -> Result<Self, Error> {
        let nothing = |reason: String| Error::NoDevice { reason: Some(reason), devices: Vec::new() };
        // SAFETY: loading the Vulkan loader runs its initialisers, which any process that uses Vulkan runs.
        let entry = unsafe { ash::Entry::load() }
            .map_err(|error| nothing(format!("the Vulkan loader is not installed ({error})")))?;
        // SAFETY: no preconditions.
        let version = unsafe { entry.try_enumerate_instance_version() }.ok().flatten().unwrap_or(vk::API_VERSION_1_0);
        if version < vk::API_VERSION_1_2 {
            return Err(nothing("the Vulkan loader is older than version 1.2".into()));
        }
        // SAFETY: no preconditions.
        let extensions = unsafe { entry.enumerate_instance_extension_properties(None) }.unwrap_or_default();
        let portability =
            extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(ash::khr::portability_enumeration::NAME));

        let application = vk::ApplicationInfo::default()
            .application_name(c"bls12_field_gpu")
            .api_version(version.min(vk::API_VERSION_1_3));
        let mut names = Vec::new();
        let mut flags = vk::InstanceCreateFlags::empty();
        if portability {
            names.push(ash::khr::portability_enumeration::NAME.as_ptr());
            flags |= vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        }
        let log = ValidationLog::default();
        let mut messenger_info = messenger_info(&log);
        let synchronization = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&synchronization);
        let layers = [VALIDATION_LAYER.as_ptr()];
        let mut info = vk::InstanceCreateInfo::default().application_info(&application).flags(flags);
        if validation != Validation::Off {
            // SAFETY: no preconditions.
            let installed = unsafe { entry.enumerate_instance_layer_properties() }.unwrap_or_default();
            if !installed.iter().any(|layer| layer.layer_name_as_c_str() == Ok(VALIDATION_LAYER)) {
                return Err(Error::NoValidationLayer);
            }
            names.push(ash::ext::debug_utils::NAME.as_ptr());
            info = info.enabled_layer_names(&layers).push_next(&mut messenger_info);
            if validation == Validation::Synchronization {
                info = info.push_next(&mut features);
            }
        }
        info = info.enabled_extension_names(&names);
        // SAFETY: all pointers in `info` outlive the call; the layer and the extensions were just found to exist.
        let raw = unsafe { entry.create_instance(&info, None) }.map_err(|result| match result {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => nothing("no Vulkan driver is installed".into()),
            other => nothing(format!("the Vulkan driver fails: vkCreateInstance: {other}")),
        })?;
        let mut loaded = LOADED.lock();
        if loaded.is_none() {
            let names = if portability { &names[..1] } else { &[] };
            let info = vk::InstanceCreateInfo::default().application_info(&application).flags(flags);
            // SAFETY: as above.
            let raw = unsafe { entry.create_instance(&info.enabled_extension_names(names), None) };
            *loaded = raw.ok().map(|raw| (raw, entry.clone()));
        }
        drop(loaded);
        let mut instance = Self { raw, log, version: application.api_version, messenger: None, _entry: entry };
        if validation != Validation::Off {
            let debug = ash::ext::debug_utils::Instance::new(&instance._entry, &instance.raw);
            let info = self::messenger_info(&instance.log);
            // SAFETY: the extension is enabled; the log that the callback writes to is dropped after the messenger.
            let messenger = unsafe { debug.create_debug_utils_messenger(&info, None) };
            instance.messenger = Some((debug, messenger.map_err(driver_error("vkCreateDebugUtilsMessengerEXT"))?));
        }
        Ok(instance)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: every object made from the instance is gone: `Gpu`, which holds it, destroys its device first.
        unsafe {
            if let Some((debug, messenger)) = self.messenger.take() {
                debug.destroy_debug_utils_messenger(messenger, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}

fn messenger_info(log: &ValidationLog) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    use vk::{DebugUtilsMessageSeverityFlagsEXT as Severity, DebugUtilsMessageTypeFlagsEXT as Type};
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(Severity::WARNING | Severity::ERROR)
        .message_type(Type::VALIDATION | Type::PERFORMANCE)
        .pfn_user_callback(Some(on_message))
        .user_data(Arc::as_ptr(&log.0).cast_mut().cast())
}

/// # Safety
/// Called by the validation layer with the pointer given in `messenger_info`, which the instance keeps alive.
unsafe extern "system" fn on_message(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _kind: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    log: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: the layer passes valid data for the length of the call; the log is the one given in `messenger_info`.
    let (log, text) = unsafe {
        let text = data.as_ref().and_then(|data| data.message_as_c_str()).unwrap_or(c"(no message)");
        (&*log.cast::<Mutex<Vec<String>>>(), text.to_string_lossy().into_owned())
    };
    tracing::error!(target: "vulkan_validation", "{text}");
    log.lock().push(text);
    vk::FALSE
}
