//! Whatever the Functions host sends, the envelope is decoded or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(invocation) = tts_iot_hub::functions::decode("fuzz", body) {
        assert!(invocation.events.iter().all(|event| event.body.len() <= body.len()));
    }
});
