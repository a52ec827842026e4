/* Reads pictures in the simplest format there is: binary PPM (P6), 8 bits per channel. */

#ifndef PPM_H
#define PPM_H

#include <stdint.h>

typedef struct ppm_image {
    uint32_t width, height;
    uint8_t *rgb; /* 3 * width * height bytes, row by row from the top left */
} ppm_image;

/* Returns NULL and fills in the image, which ppm_free releases; or returns what is wrong with the file. */
const char *ppm_read(const char *path, ppm_image *image);

void ppm_free(ppm_image *image);

#endif
