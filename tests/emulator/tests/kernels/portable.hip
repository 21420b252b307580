// Compiles for every architecture.
#include "device.h"

extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(1, 64))) void bounded(u32 *out) {
    if (thread() == 0) out[0] = 1;
}
