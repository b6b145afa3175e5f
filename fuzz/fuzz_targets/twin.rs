//! Whatever a codec decodes, the patch that is made of it obeys every rule of twins.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tts_iot_hub::iot_hub::twin::{check, fit_reported};

fuzz_target!(|payload: &[u8]| {
    if let Ok(payload) = serde_json::from_slice(payload) {
        let fitted = fit_reported(payload);
        check(&fitted.patch).expect("a fitted patch obeys the rules");
    }
});
