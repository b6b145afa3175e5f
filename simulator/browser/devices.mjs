// Ten sensors that nobody has built, and what they say.

export const DEVICES = [
  ["air-greenhouse-01", 2, (n) => ({ temperature: 23.5 + n / 2, humidity: 61 - n, co2: 742 + n * 9, battery: 96 })],
  ["co2-classroom-4b", 5, (n) => ({ co2: 911 + n * 31, temperature: 21.8, occupancy: n > 0, battery: { volts: 3.57, percent: 88 } })],
  ["door-cold-store", 3, (n) => ({ open: n % 2 === 1, opened_today: 14 + n, temperature: 3.9 })],
  ["leaf-vineyard-07", 9, (n) => ({ wetness: 34 + n, temperature: 17.2, battery: 71 })],
  ["meter-water-114", 10, (n) => ({ volume_m3: 1284 + n, flow_lph: 118, leak: false })],
  ["parking-bay-17", 1, (n) => ({ occupied: n % 2 === 0, changes: 233 + n })],
  ["soil-field-north", 2, (n) => ({ depth: { cm10: { moisture: 27.5 - n, temperature: 14.2 }, cm30: { moisture: 31.8, temperature: 12.9 } }, ec: 0.42, battery: 93 })],
  ["tank-diesel-2", 4, (n) => ({ level_percent: 63 - n, litres: 1890 - n * 30, temperature: 11.5 })],
  ["valve-orchard-3", 15, (n) => ({ valve: "closed", pressure_bar: 2.5 + n / 4, litres_today: 310 + n, interval: 600 })],
  ["weather-mast-1", 2, (n) => ({ wind: { speed: 5.5 + n, gust: 9.1, direction: 248 }, rain_mm: 0.6, temperature: 16.8, pressure: 1013.2 })],
];

export const VALVE = "valve-orchard-3";
export const SOIL = "soil-field-north";

/** Tags that register a device in The Things Stack. */
export const tags = (number) => ({
  site: "orchard",
  lorawan: {
    devEui: `70B3D57ED8${String(number).padStart(6, "0")}`,
    joinEui: "0000000000000001",
    lorawanVersion: "1.0.3",
    regionalParametersVersion: "1.0.3-a",
    appKey: String(number).padStart(32, "A"),
    frequencyPlanId: "EU_863_870_TTN",
    versionIdentifiers: { brandId: "acme-sensors", modelId: "probe-x", hardwareVersion: "1.0", firmwareVersion: "1.0", bandId: "EU_863_870" },
  },
});
