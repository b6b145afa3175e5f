//! Whatever the topic of a message carries, it becomes the properties of an event or is refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bag: &str| {
    if let Some(properties) = simulator::iot_hub::fuzzing::property_bag(bag) {
        assert!(properties <= bag.split('&').count());
    }
});
