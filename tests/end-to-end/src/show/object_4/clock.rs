// SPDX-License-Identifier: Apache-2.0
//! A clock that goes wrong for one process: a library that answers for the system's clock, an hour late.

use std::path::PathBuf;

use super::Stage;
use crate::{
    failure::{Context, Outcome},
    program::Program,
};

/// The monotonic clock stays right: only the time of day is wrong, as after a failed synchronisation.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

#define SHIFT (-3600)

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += SHIFT;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"#;

/// The library, for `LD_PRELOAD`.
pub(super) fn shifted(stage: &Stage) -> Outcome<PathBuf> {
    let (source, library) = (stage.path("clock.c"), stage.path("clock.so"));
    std::fs::write(&source, SOURCE).context(source.display())?;
    Program::new("gcc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .run()
        .context("a clock that goes wrong")?;
    Ok(library)
}
