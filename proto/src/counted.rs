//! How many there are of something, in words.

use std::fmt::Display;

/// `1 device`, `2 devices`: the count and what is counted, as `one` of it and as `several`.
pub fn counted<T: Copy + Display + PartialEq + From<u8>>(count: T, one: &str, several: &str) -> String {
    let what = if count == T::from(1) { one } else { several };
    format!("{count} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_one() {
        assert_eq!(counted(0_u32, "entry", "entries"), "0 entries");
        assert_eq!(counted(1_usize, "entry", "entries"), "1 entry");
        assert_eq!(counted(21_u64, "entry", "entries"), "21 entries");
    }
}
