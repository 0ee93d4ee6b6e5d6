// A plugin of qemu-user that writes to stderr how many instructions a program executed: qemu-aarch64 -plugin FILE.so.
// Debian's qemu comes without its header, so that what is used of it is declared here.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef uint64_t Id;
struct qemu_plugin_tb;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_trans_cb(Id id, void (*translated)(Id, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, void (*executed)(unsigned, void*), int flags,
                                          void* data);
void qemu_plugin_register_atexit_cb(Id id, void (*at_exit)(Id, void*), void* data);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t instructions;

static void executed(unsigned cpu, void* count) {
  (void)cpu;
  instructions += (size_t)count;
}
static void translated(Id id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void*)qemu_plugin_tb_n_insns(block));
}
static void at_exit(Id id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "%" PRIu64 "\n", instructions);
}

__attribute__((visibility("default"))) int qemu_plugin_install(Id id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
