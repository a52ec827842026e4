// A plugin for qemu's user-mode emulators that counts the instructions of the program, function by function.
//
// Arguments: to=FILE, where a line goes for each function that ran, when the program ends: how many instructions, a tab, and
// the function's name ("?" for code without symbols, such as a shared library's).
//
// A block of instructions without a jump is counted as a whole when it is entered. qemu's header is not part of every
// distribution's packages, so the few functions that are used here are declared as qemu documents them.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*callback)(unsigned int, void *),
                                          enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *), void *data);

#define EXPORT __attribute__((visibility("default")))

// Version 1 is that of qemu before 9.0; later ones take 2.
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

// A translated block. None is ever freed: qemu may still run it.
struct block {
    const char *function;
    uint64_t instructions;
    uint64_t entered;
    struct block *next;
};

static struct block *blocks;
static const char *file;

static void enter(unsigned int cpu, void *data) {
    (void)cpu;
    __atomic_fetch_add(&((struct block *)data)->entered, 1, __ATOMIC_RELAXED);
}

// qemu translates one block at a time.
static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *translated) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    const char *function = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(translated, 0));
    block->function = function && *function ? function : "?";
    block->instructions = qemu_plugin_tb_n_insns(translated);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translated, enter, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void finish(qemu_plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    FILE *to = fopen(file, "w");
    if (!to) {
        perror(file);
        return;
    }
    for (const struct block *block = blocks; block; block = block->next) {
        if (block->entered) fprintf(to, "%llu\t%s\n", (unsigned long long)(block->instructions * block->entered), block->function);
    }
    if (fclose(to)) perror(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments) {
    (void)info;
    if (count != 1 || strncmp(arguments[0], "to=", 3)) {
        fputs("the plugin takes to=FILE\n", stderr);
        return 1;
    }
    file = strdup(arguments[0] + 3);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
