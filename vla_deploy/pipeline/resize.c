/* Copyright 2026 The vla_deploy authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Bilinear resize of an image of RGB, BGR, RGBA or BGRA bytes to float planes R, G, B, one output row after the other: two
 * source rows are mixed, then the columns of the mixed row. Only one row is kept between the two,
 * which stays in the nearest cache. images.py makes the plan and checks all sizes.
 *
 * Every result is one rounding of each product and sum in float32, in the order that stands here
 * (-ffp-contract=off), so that all machines give the same bits. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };

/* The two source pixels of each output pixel of an axis, and their weights. Columns are counted in
 * elements of a source row: 3 or 4 for each pixel, of which the first three are its colours. */
struct axis {
    const int32_t *first, *second;
    const float *first_weight, *second_weight;
};

/* Sizes are in elements. Outputs are scale * (mixed bytes) + offset. */
struct plan {
    struct axis rows, columns;
    ptrdiff_t source_row;    /* from the first pixel's first colour to the last one's third */
    ptrdiff_t width;         /* columns out */
    ptrdiff_t output_row;    /* from one output row to the next */
    ptrdiff_t output_plane;  /* from one colour to the next, negative for BGR */
    float scale, offset;
};

typedef float quad __attribute__((vector_size(16)));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t lanes __attribute__((vector_size(16)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (lanes){i, j, k, l})
#endif

/* x86-64 promises no vectors of 8 floats: where the loader can choose, a second version has them. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_TOO __attribute__((target_clones("avx2", "default")))
#else
#define WIDE_TOO
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

WIDE_TOO static void mix_rows(const uint8_t *restrict first, const uint8_t *restrict second,
                     float first_weight, float second_weight, ptrdiff_t count,
                     float *restrict mixed)
{
    for (ptrdiff_t i = 0; i < count; i++)
        mixed[i] = first_weight * (float)first[i] + second_weight * (float)second[i];
}

/* The three colours of one output pixel; the fourth lane holds nothing of use. */
static inline quad mix_pixel(const struct axis *columns, const float *mixed, ptrdiff_t x)
{
    return columns->first_weight[x] * load(mixed + columns->first[x])
         + columns->second_weight[x] * load(mixed + columns->second[x]);
}

static void mix_columns(const struct plan *plan, const float *restrict mixed,
                        float *restrict plane0, float *restrict plane1, float *restrict plane2)
{
    const struct axis *columns = &plan->columns;
    const float scale = plan->scale, offset = plan->offset;
    ptrdiff_t x = 0;
    for (; x + LANES <= plan->width; x += LANES) {
        quad a = mix_pixel(columns, mixed, x), b = mix_pixel(columns, mixed, x + 1);
        quad c = mix_pixel(columns, mixed, x + 2), d = mix_pixel(columns, mixed, x + 3);
        quad ab01 = PICK(a, b, 0, 4, 1, 5), ab2 = PICK(a, b, 2, 6, 3, 7);
        quad cd01 = PICK(c, d, 0, 4, 1, 5), cd2 = PICK(c, d, 2, 6, 3, 7);
        store(plane0 + x, PICK(ab01, cd01, 0, 1, 4, 5) * scale + offset);
        store(plane1 + x, PICK(ab01, cd01, 2, 3, 6, 7) * scale + offset);
        store(plane2 + x, PICK(ab2, cd2, 0, 1, 4, 5) * scale + offset);
    }
    for (; x < plan->width; x++) {
        quad pixel = mix_pixel(columns, mixed, x) * scale + offset;
        plane0[x] = pixel[0];
        plane1[x] = pixel[1];
        plane2[x] = pixel[2];
    }
}

/* Write the output rows start .. stop - 1 of an image whose rows are `image_row` bytes apart; its
 * first pixel's colours go to `output` and the planes after it. `mixed` is room for a source row
 * and one float behind it, which is read with the last pixel. */
void vla_deploy_resize(const struct plan *plan, const uint8_t *image, ptrdiff_t image_row,
                       float *output, float *mixed, ptrdiff_t start, ptrdiff_t stop)
{
    const struct axis *rows = &plan->rows;
    for (ptrdiff_t y = start; y < stop; y++) {
        mix_rows(image + rows->first[y] * image_row, image + rows->second[y] * image_row,
                 rows->first_weight[y], rows->second_weight[y], plan->source_row, mixed);
        float *to = output + y * plan->output_row;
        mix_columns(plan, mixed, to, to + plan->output_plane, to + 2 * plan->output_plane);
    }
}
