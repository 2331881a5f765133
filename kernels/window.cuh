// Which windows saw a pixel? What the gradients of convolution and pooling ask, which gather: a thread owns a pixel
// and looks for the windows that saw it.
//
// Window p starts at row p*stride_v - pad_v, so row h lies `down` = h + pad_v - p*stride_v rows below its start. A tap
// reads it where 0 <= down <= (R-1)*dilation_v and down is a multiple of dilation_v; that tap is r = down / dilation_v.
// A later window starts lower, so going from the last window back to the first makes r grow. Columns likewise.

// The tap that reads a pixel `distance` pixels behind the window's start, or -1: with dilation there are gaps
// between taps.
__device__ inline int tap_at(int distance, int dilation)
{
    if (dilation == 1) return distance;  // nearly always, and a division takes as long as twenty additions
    return distance % dilation == 0 ? distance / dilation : -1;
}
