// scale^-beta, by which response normalisation divides. For the paper's 3/4 two square roots do, which cost far less
// than a power.
template <typename T>
__device__ inline T shrink(T scale, T beta) {
    if (beta == T(0.75)) {
        T root = sqrt(scale);
        return 1 / (root * sqrt(root));
    }
    return pow(scale, -beta);
}
