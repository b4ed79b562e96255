//! Figures as people read them: columns, mebibytes, percentiles. Pure.

use std::collections::BTreeMap;

/// Bytes as mebibytes.
pub fn mebibytes(bytes: u64) -> f64 {
    const MIB: f64 = (1u64 << 20) as f64;
    bytes as f64 / MIB
}

/// Columns to the right, two spaces apart.
pub fn align<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        format!("{}\n", cells.join("  "))
    };
    rows.iter().map(line).collect()
}

/// The distributions of several nodes as one.
pub fn merge<'a>(parts: impl IntoIterator<Item = &'a [(u64, u64)]>) -> BTreeMap<u64, u64> {
    let mut whole = BTreeMap::new();
    for &(nanos, count) in parts.into_iter().flatten() {
        *whole.entry(nanos).or_insert(0) += count;
    }
    whole
}

/// The time below which `percent` percent of the counted ones lie, in microseconds; 0 if none were counted.
pub fn percentile_us(times: &BTreeMap<u64, u64>, percent: u64) -> f64 {
    const NANOS_PER_MICRO: f64 = 1e3;
    let total: u64 = times.values().sum();
    let rank = (total.saturating_mul(percent)).div_ceil(100);
    let mut seen = 0;
    let found = times.iter().find(|(_, count)| {
        seen += *count;
        seen >= rank
    });
    found.map_or(0.0, |(nanos, _)| *nanos as f64 / NANOS_PER_MICRO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_nothing_and_of_one() {
        assert_eq!(percentile_us(&BTreeMap::new(), 50), 0.0);
        assert_eq!(percentile_us(&BTreeMap::from([(7_000, 1)]), 99), 7.0);
    }
}
