/* NVIDIA's management library as far as the node asks it, for machines without a GPU: two devices,
   the second with NVML_SECOND_FAULT as what it answers about its memory. */
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)(unsigned long)(index + 1);
  return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  strncpy(name, device == (void *)1 ? "Fake H200" : "Fake L4", length);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  const char *fault = getenv("NVML_SECOND_FAULT");
  if (device == (void *)2 && fault) return atoi(fault);
  memory->total = device == (void *)1 ? 150000000000ULL : 24000000000ULL;
  memory->used = device == (void *)1 ? 30000000000ULL : 0ULL;
  memory->free = memory->total - memory->used;
  return 0;
}
const char *nvmlErrorString(int status) { return status == 15 ? "GPU is lost" : "unknown"; }
