//! Runs many seeds of the simulation of nodes that die.
fn main() {
    let mut arguments = std::env::args().skip(1);
    let from: u64 = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let to: u64 = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(1000);
    let echo = arguments.next().is_some();
    let mut totals = [0_u64; 8];
    let mut bad = 0;
    for seed in from..to {
        match dsm_tests::survive::run(seed, echo) {
            Ok(c) => {
                for (t, n) in totals.iter_mut().zip([
                    c.events,
                    c.deaths,
                    c.views,
                    c.recoveries,
                    c.records,
                    c.lost,
                    c.sections,
                    c.stores,
                ]) {
                    *t += n;
                }
            }
            Err(failure) => {
                bad += 1;
                if bad == 1 {
                    for line in &failure.trace {
                        println!("  {line}");
                    }
                }
                println!("seed {seed}: {}", failure.what);
                if bad > 10 {
                    break;
                }
            }
        }
    }
    println!("events, deaths, views, recoveries, records, lost, sections, stores: {totals:?}; {bad} bad");
}
