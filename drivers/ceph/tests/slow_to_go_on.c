/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a process, it has librados' threads go on late after they gave work to another one, one of them at a time: what
 * a busy machine does now and then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

int pthread_cond_signal(pthread_cond_t *condition)
{
    static int (*signal)(pthread_cond_t *);
    static int is_late;
    if (!signal)
        signal = (int (*)(pthread_cond_t *))dlvsym(RTLD_NEXT, "pthread_cond_signal", "GLIBC_2.3.2");
    int done = signal(condition);
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "io_context_pool") == 0 && !__sync_lock_test_and_set(&is_late, 1)) {
        struct timespec late = {0, 30 * 1000 * 1000};
        nanosleep(&late, NULL);
        __sync_lock_release(&is_late);
    }
    return done;
}
