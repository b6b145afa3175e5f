//! `tts-iot-hub`: the bridge between The Things Stack and Azure IoT Hub.

pub mod failure;
pub mod functions;
pub mod ids;
