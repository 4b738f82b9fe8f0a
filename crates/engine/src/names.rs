//! Names for containers that were given none: an adjective and somebody who found something out.

use crate::error::{Error, Result};

const ADJECTIVES: [&str; 64] = [
    "agile", "airy", "amber", "ample", "ardent", "azure", "balmy", "blithe", "bold", "brisk",
    "calm", "candid", "civil", "clear", "cosy", "crisp", "deft", "eager", "early", "earnest",
    "fair", "fleet", "fond", "frank", "free", "fresh", "genial", "gentle", "glad", "golden",
    "grand", "hale", "hardy", "hearty", "honest", "ideal", "jaunty", "jolly", "keen", "kind",
    "level", "light", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "placid", "plucky", "polite", "prime", "quiet", "ready", "robust", "serene", "sober",
    "spry", "steady", "sunny", "witty",
];

const SURNAMES: [&str; 64] = [
    "abel",
    "airy",
    "ampere",
    "avogadro",
    "babbage",
    "banach",
    "bayes",
    "bessel",
    "bohr",
    "boole",
    "born",
    "bose",
    "brahe",
    "cantor",
    "carson",
    "cauchy",
    "cayley",
    "celsius",
    "cerf",
    "church",
    "clarke",
    "crick",
    "dalton",
    "davy",
    "dirac",
    "doppler",
    "erdos",
    "euler",
    "fermat",
    "fourier",
    "galois",
    "gauss",
    "germain",
    "godel",
    "hamming",
    "herschel",
    "hilbert",
    "hooke",
    "huygens",
    "jacobi",
    "joule",
    "kelvin",
    "klein",
    "lamarr",
    "laplace",
    "leibniz",
    "linnaeus",
    "lovelace",
    "mach",
    "maxwell",
    "mendel",
    "nightingale",
    "noether",
    "ohm",
    "pascal",
    "planck",
    "raman",
    "riemann",
    "sagan",
    "shannon",
    "tesla",
    "turing",
    "volta",
    "wiener",
];

/// One of the 4096 names, or beyond the first tries one of many more.
pub(crate) fn random(attempt: u32) -> Result<String> {
    let mut bytes = [0; 4];
    random_bytes(&mut bytes)?;
    let name = compose(bytes[0], bytes[1]);
    // With thousands of containers, a number keeps the search short.
    Ok(if attempt < 4 {
        name
    } else {
        format!("{name}{}", u16::from_le_bytes([bytes[2], bytes[3]]))
    })
}

fn compose(first: u8, second: u8) -> String {
    let pick = |words: &[&'static str; 64], byte: u8| words[usize::from(byte) % words.len()];
    format!("{}_{}", pick(&ADJECTIVES, first), pick(&SURNAMES, second))
}

/// A new id: 64 hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    random_bytes(&mut bytes)?;
    Ok(hex::encode(bytes))
}

fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|e| Error::io("cannot get random numbers", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_words_are_not_repeated() {
        for byte in 0..64 {
            assert!(crate::records::valid_name(&compose(byte, byte)));
        }
        for words in [ADJECTIVES, SURNAMES] {
            assert!(words.is_sorted());
            assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
        }
        assert!(crate::records::valid_name(&random(9).unwrap()));
        assert!(crate::records::is_id(&random_id().unwrap()));
    }
}
