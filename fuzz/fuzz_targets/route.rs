//! Whatever is written as a route condition or a query for twins, it is answered or refused.
#![no_main]

use simulator::iot_hub::fuzzing::{query, route_condition};

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8])| {
    let (text, document) = input;
    let _ = route_condition(text, document);
    let _ = query(text, document);
    let _ = query(&format!("SELECT * FROM devices WHERE {text}"), document);
});
