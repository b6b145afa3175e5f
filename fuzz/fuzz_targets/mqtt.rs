//! Whatever a device sends, it is decoded into MQTT packets or refused, in pieces of any size alike.
#![no_main]

use simulator::iot_hub::fuzzing::packets;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    assert_eq!(packets(stream, piece.into()), packets(stream, stream.len()));
});
