import { defineConfig } from "vite";

// The built page is committed and packaged in the wheel, so that installing Gorggle needs no Node.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../python/gorggle_gateway/page",
    emptyOutDir: true,
    target: "es2022",
    // Never inline assets as data: URLs, which the content security policy forbids.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  worker: { format: "es" },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8080", ws: true }, "/api": "http://127.0.0.1:8080", "/config.json": "http://127.0.0.1:8080" } },
});
