//! Devices that train less than all of the adapter: what each number of a sum is divided by.
//!
//! A device of a class leaves zeros where it trains nothing, so the sum of a number is that of the devices that
//! train it, and their mean is the sum divided by how many they are: no zero that only fills up pulls it down. The
//! same division makes the noise of such a number larger, by the survivors over its trainers: its deviation is
//! z·c over the trainers. Sensitivity and cost do not change, since dividing comes after the noise.
//!
//! A class is what a device says in the open when it joins. A device that says another than it trains moves a mean
//! as it could by any update; a coordinator that counts wrongly publishes another mean than it should, which it
//! could without any classes. What devices cannot check is how few trained a number. So a plan has classes only
//! where every device adds noise of its own, which is as large in a number that one device trains as in any other.

use std::collections::BTreeMap;

use proto::adapter::{AdapterSpec, Class};

/// Turns a mean over all survivors, of which so many are of each class, into one over those that train each number. A number
/// that fewer than `least` train stays as it is: its mean becomes zero.
pub(super) fn divide(mean: &mut [f32], spec: &AdapterSpec, sizes: &BTreeMap<Class, u32>, least: u32) {
    let mut trainers = vec![0_u32; mean.len()];
    for (class, size) in sizes {
        for place in class.places(spec).into_iter().flatten() {
            if let Some(count) = trainers.get_mut(place) {
                *count += size;
            }
        }
    }
    let all = sizes.values().sum::<u32>() as f32;
    for (x, count) in mean.iter_mut().zip(trainers) {
        *x = if count < least.max(1) { 0.0 } else { *x * (all / count as f32) };
    }
}

#[cfg(test)]
mod tests {
    use proto::adapter::{Factors, Method, Module};
    use proto::ids::Digest;

    use super::*;

    fn spec() -> AdapterSpec {
        let module = |layer| Module { name: format!("layers.{layer}.q"), inputs: 4, outputs: 2 };
        AdapterSpec {
            method: Method::FrozenA,
            rank: 2,
            alpha: 2.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: vec![module(0), module(1)],
        }
    }

    fn sizes(survivors: &[Class]) -> BTreeMap<Class, u32> {
        let mut sizes = BTreeMap::new();
        for class in survivors {
            *sizes.entry(*class).or_default() += 1;
        }
        sizes
    }

    /// Every device moves what it trains by its number.
    fn mean(devices: &[(Class, f32)]) -> Vec<f32> {
        let mut mean = vec![0.0; spec().trained_len()];
        for (class, x) in devices {
            for place in class.places(&spec()).into_iter().flatten() {
                mean[place] += x / devices.len() as f32;
            }
        }
        mean
    }

    #[test]
    fn each_number_is_divided_by_those_that_train_it() {
        let class = |rank, layers| Class { rank, layers };
        let devices = [(class(2, 2), 1.0), (class(1, 2), 3.0), (class(2, 1), 8.0), (class(1, 1), 4.0)];
        let classes = devices.map(|(class, _)| class);
        let mut found = mean(&devices);
        divide(&mut found, &spec(), &sizes(&classes), 1);
        // Layer 0: the first column by the first two devices, the second by the first alone. Layer 1: by all, and by
        // the first and the third.
        for (x, y) in found.iter().zip([2.0, 1.0, 2.0, 1.0, 4.0, 4.5, 4.0, 4.5]) {
            assert!((x - y).abs() < 1e-6, "{found:?}");
        }
        let mut found = mean(&devices);
        divide(&mut found, &spec(), &sizes(&classes), 2);
        assert_eq!(
            found.iter().map(|x| *x > 0.0).collect::<Vec<_>>(),
            [true, false, true, false, true, true, true, true]
        );
    }

    #[test]
    fn where_all_train_all_of_it_nothing_changes() {
        let devices = [(Class::whole(&spec()), 1.0), (Class::whole(&spec()), 2.0)];
        let mut found = mean(&devices);
        divide(&mut found, &spec(), &sizes(&devices.map(|(class, _)| class)), 2);
        assert_eq!(found, mean(&devices));
    }
}
