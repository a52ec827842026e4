#include "ppm.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Larger sides are refused before memory is asked for: a header is easily wrong, and a picture never that large. */
enum { MAX_SIDE = 16384 };

static bool is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Reads a number of the header and the one character behind it. Spaces and comments may stand before it. */
static bool read_number(FILE *file, uint32_t max, uint32_t *number)
{
    int c = getc(file);
    while (is_space(c) || c == '#') {
        if (c == '#') {
            while (c != '\n' && c != EOF) c = getc(file);
        } else {
            c = getc(file);
        }
    }
    uint32_t value = 0;
    bool has_digits = false;
    for (; c >= '0' && c <= '9'; c = getc(file)) {
        value = 10 * value + (uint32_t)(c - '0');
        has_digits = true;
        if (value > max) return false;
    }
    *number = value;
    return has_digits && value > 0 && is_space(c);
}

static const char *read_image(FILE *file, ppm_image *image)
{
    uint32_t max = 0;
    if (getc(file) != 'P' || getc(file) != '6') return "not a binary PPM file (P6)";
    if (!read_number(file, MAX_SIDE, &image->width)) return "no width that is a picture's";
    if (!read_number(file, MAX_SIDE, &image->height)) return "no height that is a picture's";
    if (!read_number(file, UINT16_MAX, &max) || max != 255) return "not of 8 bits per channel";

    const size_t size = (size_t)3 * image->width * image->height;
    image->rgb = malloc(size);
    if (image->rgb == NULL) return "out of memory";
    if (fread(image->rgb, 1, size, file) != size) return "the file ends before the picture does";
    return NULL;
}

const char *ppm_read(const char *path, ppm_image *image)
{
    *image = (ppm_image){0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) return "the file cannot be opened";
    const char *problem = read_image(file, image);
    fclose(file);
    if (problem != NULL) ppm_free(image);
    return problem;
}

void ppm_free(ppm_image *image)
{
    free(image->rgb);
    *image = (ppm_image){0};
}
