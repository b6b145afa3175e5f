//! Whatever a webhook carries, it is parsed and planned or refused, and its message id is one that IoT Hub takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tts_iot_hub::stack::ApplicationUp;

fuzz_target!(|body: &[u8]| {
    if let Ok(up) = ApplicationUp::parse(body.to_vec().into(), Some("probe-0001")) {
        let id = up.message_id();
        assert!(id.len() <= 128 && id.is_ascii() && !id.contains(' '), "{id}");
    }
});
