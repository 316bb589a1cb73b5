# openssl: a server and its clients on loopback, and its speed test for as long as it takes to run.
cd "$1" || exit 1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out cert -subj /CN=localhost 2>/dev/null
seq 20000 >data
openssl s_server -accept 127.0.0.1:0 -cert cert -key key -WWW >server.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null' EXIT
for _ in $(seq 600); do
    port=$(sed -n 's/^ACCEPT 127.0.0.1:\([0-9]*\)$/\1/p' server.log)
    [[ $port ]] && break
    kill -0 $server || exit 1
    sleep 0.1
done
for cipher in TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256; do
    for _ in 1 2 3; do
        printf 'GET /data HTTP/1.0\r\n\r\n' |
            openssl s_client -quiet -connect "127.0.0.1:$port" -CAfile cert -ciphersuites $cipher 2>/dev/null |
            sed '1,/^\r$/d' | sha256sum
    done
done
printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -connect "127.0.0.1:$port" -CAfile cert -tls1_2 2>/dev/null |
    grep -E 'Verify return code|Protocol|Cipher is'
kill $server; wait $server; echo "server $?"
openssl speed -mr -seconds 1 -bytes 4096 sha256 2>&1 | sed -n 's/^\(+[DF][T]*:[^:]*:[^:]*\):.*/\1/p'
openssl speed -mr -multi 2 -seconds 1 -bytes 4096 -evp aes-128-gcm >speed 2>&1; echo "speed $?"
echo secret | openssl enc -aes-256-cbc -pbkdf2 -pass pass:x | openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:x
openssl genrsa 2048 2>/dev/null | openssl rsa -check -noout 2>&1 | head -1
