/* Copyright 2026 The vla_deploy authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Bilinear resize of an interleaved RGB image to float planes, one output row after the other: two
 * source rows are mixed, then the columns of the mixed row. Only one row is kept between the two,
 * which stays in the nearest cache. images.py makes the plan and checks all sizes.
 *
 * Every result is one rounding of each product and sum in float32, in the order that stands here
 * (-ffp-contract=off), so that all machines give the same bits. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { CHANNELS = 3, LANES = 4 };

/* The two source pixels of each output pixel of an axis, and their weights. Columns are counted in
 * floats of the mixed row: CHANNELS for each pixel. */
struct axis {
    const int32_t *first, *second;
    const float *first_weight, *second_weight;
};

/* Sizes are in elements. Outputs are scale * (mixed bytes) + offset. */
struct plan {
    struct axis rows, columns;
    ptrdiff_t source_row;    /* width in * CHANNELS */
    ptrdiff_t width;         /* columns out */
    ptrdiff_t output_row;    /* from one output row to the next */
    ptrdiff_t output_plane;  /* from one channel to the next */
    float scale, offset;
};

typedef float quad __attribute__((vector_size(16)));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t lanes __attribute__((vector_size(16)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (lanes){i, j, k, l})
#endif

static inline quad load(const float *from)
{
    quad value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float *to, quad value)
{
    memcpy(to, &value, sizeof value);
}

static void mix_rows(const uint8_t *restrict first, const uint8_t *restrict second,
                     float first_weight, float second_weight, ptrdiff_t count,
                     float *restrict mixed)
{
    for (ptrdiff_t i = 0; i < count; i++)
        mixed[i] = first_weight * (float)first[i] + second_weight * (float)second[i];
}

/* The colours of one output pixel; the fourth lane holds nothing of use. */
static inline quad mix_pixel(const struct axis *columns, const float *mixed, ptrdiff_t x)
{
    return columns->first_weight[x] * load(mixed + columns->first[x])
         + columns->second_weight[x] * load(mixed + columns->second[x]);
}

static void mix_columns(const struct plan *plan, const float *restrict mixed,
                        float *restrict red, float *restrict green, float *restrict blue)
{
    const struct axis *columns = &plan->columns;
    ptrdiff_t x = 0;
    for (; x + LANES <= plan->width; x += LANES) {
        quad a = mix_pixel(columns, mixed, x), b = mix_pixel(columns, mixed, x + 1);
        quad c = mix_pixel(columns, mixed, x + 2), d = mix_pixel(columns, mixed, x + 3);
        quad red_green_ab = PICK(a, b, 0, 4, 1, 5), red_green_cd = PICK(c, d, 0, 4, 1, 5);
        quad blue_ab = PICK(a, b, 2, 6, 3, 7), blue_cd = PICK(c, d, 2, 6, 3, 7);
        store(red + x, PICK(red_green_ab, red_green_cd, 0, 1, 4, 5) * plan->scale + plan->offset);
        store(green + x, PICK(red_green_ab, red_green_cd, 2, 3, 6, 7) * plan->scale + plan->offset);
        store(blue + x, PICK(blue_ab, blue_cd, 0, 1, 4, 5) * plan->scale + plan->offset);
    }
    for (; x < plan->width; x++) {
        quad value = mix_pixel(columns, mixed, x) * plan->scale + plan->offset;
        red[x] = value[0];
        green[x] = value[1];
        blue[x] = value[2];
    }
}

/* Write the output rows start .. stop - 1 of an image whose rows are `image_row` bytes apart.
 * `mixed` is room for source_row + 1 floats: the last pixel is read with one float behind it. */
void vla_deploy_resize(const struct plan *plan, const uint8_t *image, ptrdiff_t image_row,
                       float *output, float *mixed, ptrdiff_t start, ptrdiff_t stop)
{
    const struct axis *rows = &plan->rows;
    for (ptrdiff_t y = start; y < stop; y++) {
        mix_rows(image + rows->first[y] * image_row, image + rows->second[y] * image_row,
                 rows->first_weight[y], rows->second_weight[y], plan->source_row, mixed);
        float *red = output + y * plan->output_row;
        mix_columns(plan, mixed, red, red + plan->output_plane, red + 2 * plan->output_plane);
    }
}
