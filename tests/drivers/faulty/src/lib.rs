//! test driver
