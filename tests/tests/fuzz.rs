//! fuzz
use dsm_tests::hostile::{self, Counts};
use rand::{RngExt, SeedableRng};
fn measured(work: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(work).bytes_total
}
#[test]
fn random() {
    let n: u64 = std::env::var("N").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let first: u64 = std::env::var("FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut total = Counts::default();
    for seed in first..first + n {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let length = rng.random_range(0..4096);
        let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        match hostile::attempt(&bytes, measured) {
            Ok(counts) => total.add(&counts),
            Err(what) => {
                println!("FAIL seed {seed}: {what}");
                if n == 1 {
                    println!("{:?}", hostile::replay(&bytes));
                }
            }
        }
        hostile::wire::decode(&bytes, measured).unwrap();
        hostile::wire::stream(&bytes).unwrap();
    }
    println!("{total:?}");
}

#[test]
fn what_a_machine_keeps_of_a_flood_has_an_end() {
    for kind in hostile::Flood::ALL {
        let mut machine = None;
        let kept =
            allocation_counter::measure(|| machine = Some(hostile::flood(kind, 1 << 18))).bytes_current;
        println!("{kind:?}: {kept} bytes");
    }
}
