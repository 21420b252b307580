// Instructions of graphics shaders, which nothing here needs.
#include "device.h"

KERNEL shader(u32 *out) {
    asm volatile("v_cubeid_f32 v0, v0, v0, v0" ::: "v0");
    asm volatile("v_cubesc_f32 v0, v0, v0, v0" ::: "v0");
    out[0] = 1;
}
