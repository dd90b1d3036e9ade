// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    sabi_trait,
    std_types::{RArc, RString},
};

use super::*;

mod released {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn size(&self) -> u64;
        fn name(&self, at: u32) -> RString;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
    }
}

mod inserted {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn size(&self) -> u64;
        fn fresh(&self) -> u64;
        fn name(&self, at: u32) -> RString;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
    }
}

mod reordered {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn name(&self, at: u32) -> RString;
        fn size(&self) -> u64;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
    }
}

mod changed {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn size(&self) -> u64;
        fn name(&self, at: u64) -> RString;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
    }
}

mod returns {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn size(&self) -> u32;
        fn name(&self, at: u32) -> RString;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
    }
}

mod longer {
    use super::*;
    #[sabi_trait]
    pub trait RawThing: Send + Sync {
        fn size(&self) -> u64;
        fn name(&self, at: u32) -> RString;
        #[sabi(last_prefix_field)]
        fn last(&self) -> u64;
        fn appended(&self) -> u64 {
            0
        }
    }
}

type Released = released::RawThing_TO<'static, RArc<()>>;

fn compare<T: StableAbi>() -> Result<(), String> {
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(Released::LAYOUT, T::LAYOUT, &globals)
        .map_err(|report| first_difference(&report))
}

#[test]
fn a_difference_is_named_in_a_few_words() {
    let said = [
        compare::<inserted::RawThing_TO<'static, RArc<()>>>(),
        compare::<reordered::RawThing_TO<'static, RArc<()>>>(),
        compare::<changed::RawThing_TO<'static, RArc<()>>>(),
        compare::<returns::RawThing_TO<'static, RArc<()>>>(),
    ];
    assert_eq!(
        said.map(|said| said.expect_err("it differs")),
        [
            "in RawThing: expected `name`, found `fresh`",
            "in RawThing: expected `size`, found `name`",
            "in RawThing.name.param_1: expected type `u32`, found `u64`",
            "in RawThing.size.__returns: expected type `u64`, found `u32`",
        ]
    );
}

#[test]
fn a_method_at_the_end_is_no_difference() {
    assert_eq!(compare::<longer::RawThing_TO<'static, RArc<()>>>(), Ok(()));
}
