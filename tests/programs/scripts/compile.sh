# gcc compiles, assembles and links one file that needs no headers.
cd "$1" || exit 1
cat >program.c <<'C'
extern int printf(const char *, ...);
static double power(double x, int n) { return n ? x * power(x, n - 1) : 1; }
struct tree { struct tree *left, *right; int key; };
static struct tree nodes[100];
static void insert(struct tree **at, struct tree *new) {
    while (*at) at = new->key < (*at)->key ? &(*at)->left : &(*at)->right;
    *at = new;
}
static long walk(const struct tree *t, long depth) {
    return t ? walk(t->left, depth + 1) + depth * t->key + walk(t->right, depth + 1) : 0;
}
int main(void) {
    struct tree *root = 0;
    for (int i = 0; i < 100; i++) {
        nodes[i].key = i * 37 % 101;
        insert(&root, &nodes[i]);
    }
    printf("%ld %.3f\n", walk(root, 0), power(1.01, 100));
    return 3;
}
C
gcc -O2 -Wall -c program.c || exit
sha256sum program.o
gcc -o program program.o || exit
./program
echo "status $?"
