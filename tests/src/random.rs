//! Bytes and numbers that look random and are the same for the same seed.

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// From `BANGER_TEST_SEED`, or from the clock. It is printed, so that a failure can be
    /// repeated as far as time allows.
    ///
    /// # Panics
    /// Where the variable holds no number.
    pub fn announced() -> Self {
        let seed = match std::env::var("BANGER_TEST_SEED") {
            Ok(text) => text.parse().expect("BANGER_TEST_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.subsec_nanos().into()),
        };
        eprintln!("BANGER_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below this one.
    ///
    /// # Panics
    /// Where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % limit as u64).expect("below a usize")
    }

    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// So many numbers below a limit, in ascending order.
    pub fn ascending(&mut self, count: usize, limit: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).map(|_| self.below(limit)).collect();
        numbers.sort_unstable();
        numbers
    }
}
