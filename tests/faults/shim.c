// Faults on purpose, below everything: stands between a program and the C library, in LD_PRELOAD.
//
// Memory. The k-th request of any thread finds none (malloc and its kin, which C++'s operator new and Rust's allocator call), or all
// from the k-th on. FAULT_MEMORY="once K" or "from K" sets that for a whole program; fault_arm and fault_disarm do for a part of one.
//
// Files. FAULT_FILES="CALL KIND K": the k-th read, pread, write, fsync, open or mmap is interrupted (EINTR), short, fails (EIO, ENOSPC),
// or is the last thing that the program does (kill). "rename EIO 1" lets every rename fail, which is a filter of system calls, since not
// all of them come through the C library.
//
// With FAULT_REPORT, the counts are written to that file when the program ends.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void * __libc_malloc(size_t);
extern void * __libc_calloc(size_t, size_t);
extern void * __libc_realloc(void *, size_t);
extern void * __libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static long requests, limit, live;
static int every;

// Whether this request finds memory.
static int permitted(void) {
    long number = __atomic_add_fetch(&requests, 1, __ATOMIC_SEQ_CST);
    long first = __atomic_load_n(&limit, __ATOMIC_SEQ_CST);
    return first == 0 || (every ? number < first : number != first);
}

static void * counted(void * block) {
    if (block == NULL) {
        errno = ENOMEM;
    } else {
        __atomic_add_fetch(&live, (long) malloc_usable_size(block), __ATOMIC_SEQ_CST);
    }
    return block;
}

static void uncounted(void * block) {
    if (block != NULL) {
        __atomic_sub_fetch(&live, (long) malloc_usable_size(block), __ATOMIC_SEQ_CST);
    }
}

void * malloc(size_t size) {
    return counted(permitted() ? __libc_malloc(size) : NULL);
}

void * calloc(size_t count, size_t size) {
    return counted(permitted() ? __libc_calloc(count, size) : NULL);
}

void * realloc(void * block, size_t size) {
    if (!permitted()) {
        errno = ENOMEM;
        return NULL;
    }
    long before = block == NULL ? 0 : (long) malloc_usable_size(block);
    void * moved = __libc_realloc(block, size);
    if (moved != NULL) {
        __atomic_add_fetch(&live, (long) malloc_usable_size(moved) - before, __ATOMIC_SEQ_CST);
    }
    return moved;
}

void * memalign(size_t alignment, size_t size) {
    return counted(permitted() ? __libc_memalign(alignment, size) : NULL);
}

void * aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

int posix_memalign(void ** place, size_t alignment, size_t size) {
    void * block = memalign(alignment, size);
    if (block == NULL) {
        return ENOMEM;
    }
    *place = block;
    return 0;
}

void free(void * block) {
    uncounted(block);
    __libc_free(block);
}

// From now on, the k-th request finds no memory, and with all no later one does either. 0 lets all of them be.
void fault_arm(long k, int all) {
    every = all;
    __atomic_store_n(&requests, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&limit, k, __ATOMIC_SEQ_CST);
}

// Ends that, and tells how many requests there were.
long fault_disarm(void) {
    long count = __atomic_load_n(&requests, __ATOMIC_SEQ_CST);
    __atomic_store_n(&limit, 0, __ATOMIC_SEQ_CST);
    return count;
}

// Bytes of the heap that are in use.
long fault_live(void) {
    return __atomic_load_n(&live, __ATOMIC_SEQ_CST);
}

enum call { READ, PREAD, WRITE, FSYNC, OPEN, MMAP, RENAME, CALLS };
static const char * const names[CALLS] = {"read", "pread", "write", "fsync", "open", "mmap", "rename"};
static long counts[CALLS];
static enum call chosen = CALLS;
static long chosen_k;
static char kind[16];

// Whether the fault is due with this call.
static int due(enum call call) {
    return __atomic_add_fetch(&counts[call], 1, __ATOMIC_SEQ_CST) == chosen_k && call == chosen;
}

// What a call returns that fails so, or -2 if it is only to be cut short.
static int failed(void) {
    if (strcmp(kind, "kill") == 0) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    }
    if (strcmp(kind, "short") == 0) {
        return -2;
    }
    errno = strcmp(kind, "EINTR") == 0 ? EINTR : strcmp(kind, "ENOSPC") == 0 ? ENOSPC : EIO;
    return -1;
}

static size_t cut(size_t size) {
    return size > 1 ? size / 2 : size;
}

ssize_t read(int file, void * buffer, size_t size) {
    if (due(READ)) {
        if (failed() == -1) {
            return -1;
        }
        size = cut(size);
    }
    return syscall(SYS_read, file, buffer, size);
}

ssize_t pread64(int file, void * buffer, size_t size, off64_t offset) {
    if (due(PREAD)) {
        if (failed() == -1) {
            return -1;
        }
        size = cut(size);
    }
    return syscall(SYS_pread64, file, buffer, size, offset);
}

ssize_t pread(int file, void * buffer, size_t size, off_t offset) {
    return pread64(file, buffer, size, offset);
}

ssize_t write(int file, const void * buffer, size_t size) {
    // Standard error is where a failure is told.
    if (file != 2 && due(WRITE)) {
        if (failed() == -1) {
            return -1;
        }
        size = cut(size);
    }
    return syscall(SYS_write, file, buffer, size);
}

int fsync(int file) {
    return due(FSYNC) && failed() == -1 ? -1 : (int) syscall(SYS_fsync, file);
}

int open64(const char * path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    // O_TMPFILE has the bit of O_DIRECTORY, too.
    int mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return due(OPEN) && failed() == -1 ? -1 : (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

void * mmap64(void * address, size_t size, int protection, int flags, int file, off64_t offset) {
    // Small ones without a file are for the stacks of the standard library's signal handlers, which it does not do without.
    if ((file != -1 || size >= 1 << 15) && due(MMAP) && failed() == -1) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *) syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

void * mmap(void * address, size_t size, int protection, int flags, int file, off_t offset) {
    return mmap64(address, size, protection, flags, file, offset);
}

static void refuse_renames(void) {
#define REFUSED(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef SYS_rename
        REFUSED(SYS_rename),
#endif
#ifdef SYS_renameat
        REFUSED(SYS_renameat),
#endif
        REFUSED(SYS_renameat2),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    // Counted once if the kernel takes the filter.
    counts[RENAME] = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

__attribute__((constructor)) static void begin(void) {
    const char * memory = getenv("FAULT_MEMORY");
    const char * files = getenv("FAULT_FILES");
    char word[16] = "";
    long k = 0;
    if (files != NULL && sscanf(files, "%15s %15s %ld", word, kind, &chosen_k) == 3) {
        for (int call = 0; call < CALLS; call++) {
            if (strcmp(word, names[call]) == 0) {
                chosen = call;
            }
        }
    }
    memset(counts, 0, sizeof counts);
    if (chosen == RENAME) {
        refuse_renames();
    }
    if (memory != NULL && sscanf(memory, "%15s %ld", word, &k) == 2) {
        fault_arm(k, strcmp(word, "from") == 0);
    } else {
        requests = 0;
    }
}

__attribute__((destructor)) static void end(void) {
    const char * path = getenv("FAULT_REPORT");
    char text[256];
    if (path == NULL) {
        return;
    }
    int size = snprintf(text, sizeof text, "memory %ld\n", fault_disarm());
    for (int call = 0; call < CALLS; call++) {
        size += snprintf(text + size, sizeof text - size, "%s %ld\n", names[call], counts[call]);
    }
    int file = (int) syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    syscall(SYS_write, file, text, size);
    syscall(SYS_close, file);
}
